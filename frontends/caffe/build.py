"""Caffe networks to models: layer after layer becomes ONNX nodes.

Names: the node that makes a layer's top is called like the layer, helper nodes `<layer>/<what>`,
parameters `<layer>.weight`, `.bias`, `.running_mean`, `.running_var`. A value is called like its
blob; where layers work in place, that is the last one's, and earlier ones are `<blob>@<layer>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from irprune.errors import IrpruneError, naming
from irprune.frontends.caffe.conversion import Conversion
from irprune.frontends.caffe.message import Message
from irprune.frontends.caffe.network import network_of
from irprune.frontends.caffe.options import DEFAULTS, Options, silent
from irprune.frontends.caffe.parameters import Weights
from irprune.frontends.caffe.text import read
from irprune.frontends.caffe.upgrade import current_layers
from irprune.frontends.caffe.weights import read_caffemodel
from irprune.model import Model, Provenance
from irprune.shapes import infer, inferred

BATCH = "N"
"""The name of the batch axis where it is dynamic."""


@dataclass(frozen=True)
class Imported:
    """A converted network and what the graph does not hold."""

    model: Model
    training: list[dict[str, Any]]
    """Data layers, losses and measures: name, type, bottoms, tops and fields."""
    ended: list[str]
    """Layers at which or behind which the graph ends, each with its reason."""
    values: dict[str, str]
    """The value that is a layer's first top, by layer name; merged layers are missing."""


def from_caffe(
    prototxt: Path | str,
    weights: Path | str | None = None,
    *,
    phase: str = "TEST",
    stages: Sequence[str] = (),
    level: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dynamic_batch: bool = False,
    seed: int = 0,
    end_at_heads: bool = False,
    warn: Callable[[str], None] = silent,
) -> Model:
    """The model that a prototxt describes, with the weights of a caffemodel.

    Args:
        prototxt: the network, in any of the three syntaxes.
        weights: the caffemodel; without it the fillers of the layers draw the parameters.
        phase: which layers stand in the network, with `stages` and `level`. Layers compute as
            they do at test time in any case.
        shapes: shapes of graph inputs by name, where the file states none or others.
        dynamic_batch: make the first axis of every input dynamic.
        seed: seed of the fillers.
        end_at_heads: end the graph at layers that ONNX cannot hold, such as DetectionOutput; what
            they read becomes an output.
        warn: takes one line for each thing that a user should know.

    Raises:
        IrpruneError: a file cannot be read, a layer is unknown or wrong, or the weights are those
            of another network; the message names the layer.
    """
    options = Options(
        phase, stages, level, shapes or {}, dynamic_batch, seed, end_at_heads, warn=warn
    )
    return import_caffe(prototxt, weights, options).model


def import_caffe(
    prototxt: Path | str, weights: Path | str | None = None, options: Options = DEFAULTS
) -> Imported:
    """Like `from_caffe`, with what the graph does not hold."""
    path = Path(prototxt)
    message = read(path)
    blobs = None if weights is None else read_caffemodel(weights)
    with naming(path):
        imported = convert(message, blobs, options)
    digest = hashlib.sha256(path.read_bytes())
    if weights is not None:
        with Path(weights).open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    imported.model.provenance = Provenance(path.stem, path, digest.hexdigest())
    return imported


def convert(
    message: Message, weights: Weights | None = None, options: Options = DEFAULTS
) -> Imported:
    """Like `import_caffe`, from a network's message and blobs by layer name."""
    made = {top for layer in current_layers(message) for top in layer.strs("top")}
    unmade = {name: shape for name, shape in options.shapes.items() if name not in made}
    network = network_of(message, options.phase, options.stages, options.level, unmade)
    conversion = Conversion(network, weights, options)
    conversion.run()
    name = network.name or "network"
    model = conversion.model(name)
    if options.dynamic_batch:
        _free_batch(model)
    adopted = Model.adopt(model, Provenance(name))
    return Imported(adopted, conversion.training, conversion.ended, conversion.named)


def _free_batch(model: ir.Model) -> None:
    """Make the first axis of every input dynamic, and infer the shapes anew.

    Raises:
        IrpruneError: a layer states the batch, so that examples of another one would be mixed up.
    """
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape([BATCH, *value.shape.dims[1:]])
    for value in model.graph.outputs:
        value.shape = None
    found = {info.name: info.type for info in inferred(model).graph.output}
    for value in model.graph.outputs:
        shape = ir.serde.deserialize_type_proto_for_shape(found[value.name or ""])
        if shape is None:
            continue
        dims = [d if isinstance(d, int) or d == BATCH else None for d in shape.dims]
        if dims and isinstance(dims[0], int) and None in dims:
            reason = (
                f"the batch cannot be dynamic: a layer behind which {value.name} lies states it"
            )
            raise IrpruneError(
                reason, mend="leave the batch as the file has it, or change that layer"
            )
        value.shape = ir.Shape(dims)
    infer(model)

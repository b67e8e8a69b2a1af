"""One network on its way to a graph: which layers become nodes, and what every value is called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import prod
from pathlib import Path
from typing import Any

import onnx_ir as ir

from irprune import dropout
from irprune.errors import IrpruneError
from irprune.frontends.caffe.builder import IR_VERSION, OPSET, Builder
from irprune.frontends.caffe.layers import converters
from irprune.frontends.caffe.layers.heads import HEADS, SHAPES_ONLY, SINKS, trains_only
from irprune.frontends.caffe.layers.inputs import DATA, constant_data, declared
from irprune.frontends.caffe.layers.job import Job, dims
from irprune.frontends.caffe.message import Message, TextError
from irprune.frontends.caffe.network import Layer, Network
from irprune.frontends.caffe.options import Options
from irprune.frontends.caffe.parameters import MOST_NUMBERS, Parameters, Weights

MODULE, SOURCE, LAYER = "irprune.module", "irprune.source", "irprune.layer"
"""Node metadata: the convolution module, `file:line`, and the layer that a node belongs to."""

TRAINING = "irprune.caffe.training"
"""Model metadata: the data layers, losses and measures of the file, as JSON."""


@dataclass
class Conversion:
    """The graph that grows, and what became of each layer."""

    network: Network
    weights: Weights | None
    options: Options
    training: list[dict[str, Any]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.warn = self.options.warn
        self.builder = Builder()
        self.parameters = Parameters(self.builder, self.weights, self.options.seed)
        self.versions: dict[str, list[tuple[str, ir.Value]]] = {}
        self.offered: dict[str, tuple[int, ...]] = {}
        self.unread: dict[str, None] = {}
        self.wanted: dict[ir.Value, str] = {}
        self.gone: set[str] = set()
        self.cut: set[str] = set()

    def run(self) -> None:
        """Convert every layer."""
        for name, shape in self.network.inputs:
            self.offered[name] = tuple(self.options.shapes.get(name, shape))
        known = converters()
        for index, layer in enumerate(self.network.layers):
            if layer.type in DATA and not constant_data(layer):
                self._data(layer)
            elif trains_only(layer) or self.gone.intersection(layer.bottoms):
                self.gone.update(layer.tops)
                self._train(layer)
            elif blocked := [name for name in layer.bottoms if name in self.cut]:
                self._end(layer, f"reads {blocked[0]}, which the graph does not make")
            elif layer.type in SINKS:
                for name in layer.bottoms:
                    self.unread.pop(name, None)
            elif layer.type in known:
                self._convert(layer, index)
            else:
                self._head(layer)
            for one in layer.fields.unread():
                place = f"{self.network.file or 'text'}:{one.line}"
                self.warn(f"{place}: {layer.name} ({layer.type}): unknown field `{one.name}`")
        for name in self.options.shapes:
            if name not in {value.name for value in self.builder.inputs}:
                raise IrpruneError(
                    f"there is no input {name} to give a shape",
                    file=self.network.file,
                    mend=f"inputs: {', '.join(value.name or '' for value in self.builder.inputs)}",
                )
        self._report()

    def _data(self, layer: Layer) -> None:
        for top in declared(layer):
            given = self.options.shapes.get(top.top)
            self.offered[top.top] = top.shape if given is None else tuple(given)
            if given is None and top.chosen and self._is_read(top.top):
                size = "x".join(map(str, top.shape))
                lacking = ", ".join(top.chosen)
                self.warn(
                    f"{layer.name} ({layer.type}): chose {size} for {top.top}: the file does not "
                    f"state {lacking}"
                )
        if layer.type != "Input":
            self._train(layer)

    def _is_read(self, blob: str) -> bool:
        return any(blob in one.bottoms and not trains_only(one) for one in self.network.layers)

    def _train(self, layer: Layer) -> None:
        """Keep a layer as metadata."""
        self.training.append(
            {
                "name": layer.name,
                "type": layer.type,
                "bottoms": list(layer.bottoms),
                "tops": list(layer.tops),
                "fields": _plain(layer.fields, ("name", "type", "bottom", "top")),
            }
        )
        layer.fields.ignore(*(one.name for one in layer.fields.fields))

    def _head(self, layer: Layer) -> None:
        if not self.options.end_at_heads:
            known = [*converters(), *DATA, *SINKS, *HEADS]
            close = [] if layer.type in HEADS else get_close_matches(layer.type, known, 1)
            reason = (
                "ONNX has no counterpart of this layer"
                if layer.type in HEADS
                else "unknown layer type"
            )
            mend = f"did you mean {close[0]}? " if close else ""
            raise layer.error(
                reason, f"{mend}end_at_heads=True (--end-at-heads) ends the graph before it"
            )
        self._end(layer, "ONNX has no counterpart of it" if layer.type in HEADS else "unknown type")
        if layer.type not in SHAPES_ONLY:
            for name in layer.bottoms:
                self.wanted[self._read(name, layer)] = name

    def _end(self, layer: Layer, reason: str) -> None:
        """End the graph before a layer: what it reads is computed, what it makes is not."""
        self.cut.update(layer.tops)
        self.ended.append(f"{layer.name} ({layer.type}, line {layer.line}): {reason}")
        self.warn(f"the graph ends before {self.ended[-1]}")
        layer.fields.ignore(*(one.name for one in layer.fields.fields))

    def _convert(self, layer: Layer, index: int) -> None:
        bottoms = [self._read(name, layer) for name in layer.bottoms]
        job = Job(
            layer,
            bottoms,
            self.builder,
            self.parameters,
            lambda reason: self.warn(f"{layer.name} ({layer.type}), line {layer.line}: {reason}"),
            overwritten=self.options.merge_scale
            and bool(layer.bottoms)
            and self._last_reader(index),
        )
        count = len(self.builder.nodes)
        try:
            tops = converters()[layer.type](job)
        except TextError:
            raise
        except IrpruneError as error:
            raise layer.error(error.reason, error.mend) from error
        if len(tops) != len(layer.tops):
            raise layer.error(f"makes {len(tops)} tops, the file names {len(layer.tops)}")
        for top in tops:
            if prod(dims(top)) > MOST_NUMBERS:
                raise layer.error(f"makes a blob of shape {list(dims(top))}, which is too large")
        self.parameters.check(layer)
        for node in self.builder.nodes[count:]:
            node.metadata_props[LAYER] = layer.name
            file = Path(str(self.network.file)).name if self.network.file else "text"
            node.metadata_props[SOURCE] = f"{file}:{layer.line}"
            if layer.module:
                node.metadata_props[MODULE] = layer.module
        for name in layer.bottoms:
            self.unread.pop(name, None)
        if len(self.builder.nodes) == count and tops and bottoms and layer.type == "Scale":
            self.versions[layer.bottoms[0]].pop()
        for name, value in zip(layer.tops, tops, strict=True):
            self.versions.setdefault(name, []).append((layer.name, value))
            self.unread[name] = None

    def _read(self, name: str, layer: Layer) -> ir.Value:
        """The value that a blob has now; a graph input where a data layer made it."""
        if name not in self.versions:
            shape = self.offered[name]
            self.versions[name] = [("", self.builder.input(name, shape))]
        return self.versions[name][-1][1]

    def _last_reader(self, index: int) -> bool:
        """Whether no other layer reads the first bottom of a layer, neither before nor after."""
        layers, name = self.network.layers, self.network.layers[index].bottoms[0]
        in_place = name in layers[index].tops
        if layers[index].bottoms.count(name) > 1 or self.versions[name][-1][1] in self.wanted:
            return False
        if not in_place and any(name in one.bottoms for one in layers[index + 1 :]):
            return False
        return name in self.unread

    def _report(self) -> None:
        """Say what the user should know about the parameters."""
        for names, what in (
            (self.parameters.unfilled, "have no weight_filler: their weights are drawn like msra"),
            (self.parameters.missing, "are not in the weights: their fillers draw the parameters"),
        ):
            if names:
                shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                self.warn(f"{len(names)} layers {what}: {shown}")
        if self.weights is None:
            return
        used = {layer.name for layer in self.network.layers}
        left = [name for name in self.weights if name not in used]
        if left and len(left) == len(self.weights):
            raise IrpruneError(
                "the weights have no layer of this network",
                file=self.network.file,
                mend=f"they are for layers such as {', '.join(left[:3])}",
            )
        if left:
            self.warn(f"{len(left)} layers of the weights are not used: {', '.join(left[:5])}")

    def model(self, name: str) -> ir.Model:
        """The finished graph: values and outputs named."""
        outputs = self._outputs()
        self._name()
        ends = []
        for value, blob in outputs:
            if value.name != blob and blob not in self._taken:
                (value,) = self.builder.node("Identity", [value], {}, f"{blob}/output")
                value.name = blob
                self._taken.add(blob)
            ends.append(value)
        graph = ir.Graph(
            self.builder.inputs,
            [*dict.fromkeys(ends)],
            nodes=self.builder.nodes,
            initializers=list(self.builder.initializers.values()),
            opset_imports={"": OPSET},
            name=name,
        )
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="irprune")
        dropout.note(model, sum(layer.type == "Dropout" for layer in self.network.layers))
        if self.training:
            model.metadata_props[TRAINING] = json.dumps(self.training)
        return model

    def _outputs(self) -> list[tuple[ir.Value, str]]:
        """What leaves the graph: what ended layers read, and blobs that no layer reads."""
        computed = {value for node in self.builder.nodes for value in node.outputs}
        last = [(self.versions[name][-1][1], name) for name in self.unread]
        found = [*dict.fromkeys([*self.wanted.items(), *last])]
        found = [(value, name) for value, name in found if value in computed]
        if not found:
            raise IrpruneError(
                "the network computes nothing",
                file=self.network.file,
                mend="is this a network, and do its layers stand in it at this phase?",
            )
        for value, name in found:
            if value.dtype == ir.DataType.INT64:
                self.warn(
                    f"{name} is the mask of a pooling: it counts positions over the whole blob, as "
                    "ONNX does, not over one channel's image, as Caffe does"
                )
        return found

    def _name(self) -> None:
        """Name every value after its blob."""
        self._taken = {v.name or "" for v in self.builder.inputs} | set(self.builder.initializers)
        lasts = [(blob, vs[-1][1]) for blob, vs in self.versions.items() if vs]
        earlier = [
            (f"{blob}@{layer}", value)
            for blob, versions in self.versions.items()
            for layer, value in versions
        ]
        inner = [
            (f"{node.name}:{index}", value)
            for node in self.builder.nodes
            for index, value in enumerate(node.outputs)
        ]
        for name, value in (*lasts, *earlier, *inner):
            if (value.name or "").startswith("#") and name not in self._taken:
                value.name = name
                self._taken.add(name)
        for versions in self.versions.values():
            for layer, value in versions:
                self.named.setdefault(layer, value.name or "")


def _plain(message: Message, without: Sequence[str] = ()) -> dict[str, Any]:
    """A message as JSON: a list per field."""
    plain: dict[str, Any] = {}
    for one in message.fields:
        if one.name not in without:
            value = _plain(one.value) if isinstance(one.value, Message) else one.value
            plain.setdefault(one.name, []).append(value)
    return plain

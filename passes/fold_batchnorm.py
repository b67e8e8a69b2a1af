"""`fold-batchnorm`: what scales and shifts the channels of a layer goes into its weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.names import Names
from irprune.passbase import Context, Pass, require_full_width
from irprune.queries import constant_of
from irprune.roles import inherit, origins
from irprune.tidy import (
    add_initializer,
    only_use,
    remove_dead,
    single_output,
    take_over,
)

if TYPE_CHECKING:
    from irprune.model import Model

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold BatchNormalization, and per-channel Mul and Add, into the layer before them."""

    name: ClassVar[str] = "fold-batchnorm"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        """Fold into Conv, ConvTranspose and Gemm whose output and weight nothing else reads.

        Weights and biases keep their names. A layer without bias takes over the shift of the
        BatchNormalization, or the added constant, under its name. The output keeps the name of
        the folded node's output. Raises IrpruneError where channels are already selected or gone.
        """
        require_full_width(model, self.name)
        graph, counts = model.ir.graph, Counter[str]()
        names = Names(graph)
        for node in list(graph):
            if node.op_type in ("Conv", "ConvTranspose", "Gemm") and not node.domain:
                while (follower := _follower(node)) is not None and _fold(node, follower, names):
                    counts[follower.op_type] += 1
        if counts:
            remove_dead(model.ir)
        return dict(counts)


@dataclass(frozen=True)
class _Affine:
    """y = x * scale + shift along the channels, each of shape ``(channels,)``."""

    scale: Array
    shift: Array
    holder: ir.Value
    """The initializer that becomes the bias of a layer which has none."""
    scaling: Sequence[ir.Value | None] = ()
    """What the scale is computed from."""
    shifting: Sequence[ir.Value | None] = ()
    """What the shift is computed from."""


def _follower(layer: ir.Node) -> ir.Node | None:
    """Return the one node that reads a layer's output, where it stands in the same graph."""
    if not only_use(layer.outputs[0]):
        return None
    (use,) = layer.outputs[0].uses()
    return use.node if use.node.graph is layer.graph and not use.node.domain else None


def _fold(layer: ir.Node, follower: ir.Node, names: Names) -> bool:
    """Fold the follower into the layer; return False, and change nothing, where it must stay."""
    weight, output, graph = layer.inputs[1], layer.outputs[0], layer.graph
    numbers = _numbers(weight)
    if weight is None or numbers is None or not only_use(weight):
        return False
    channels = _channels(layer, numbers.shape)
    bias = _bias(layer, channels)
    dtype = constant_of(weight).dtype  # type: ignore[union-attr]
    with np.errstate(all="ignore"):
        affine = _affine(follower, output, channels, numbers.ndim)
        if affine is None or bias is None:
            return False
        scaled = (numbers * _along(layer, affine.scale, numbers.shape)).astype(dtype)
        shifted = (bias * affine.scale + affine.shift).astype(dtype)
    if not (np.isfinite(scaled).all() and np.isfinite(shifted).all()):
        return False
    former, name = follower.outputs[0], follower.outputs[0].name
    take_over(output, former)
    assert isinstance(graph, ir.Graph)
    graph.remove(follower, safe=True)
    output.name = name
    _store(weight, scaled)
    inherit(weight, origins(affine.scaling))
    _set_bias(graph, layer, affine, shifted, names)
    return True


def _numbers(value: ir.Value | None) -> Array | None:
    """Return a floating-point initializer in double precision."""
    array = constant_of(value)
    if array is None or value is None or value.dtype is None or not value.dtype.is_floating_point():
        return None
    return array.astype(np.float64)


def _channels(layer: ir.Node, shape: Sequence[int]) -> int:
    """Return how many output channels a layer with a weight of this shape has."""
    if layer.op_type == "ConvTranspose":
        return shape[1] * layer.attributes.get_int("group", 1)
    if layer.op_type == "Gemm":
        return shape[0] if layer.attributes.get_int("transB", 0) else shape[1]
    return shape[0]


def _along(layer: ir.Node, scale: Array, shape: Sequence[int]) -> Array:
    """Return the scale of each output channel, broadcastable to the layer's weight."""
    if layer.op_type == "Gemm":
        return scale.reshape(-1, 1) if layer.attributes.get_int("transB", 0) else scale
    if layer.op_type == "Conv":
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    rows = scale.reshape(layer.attributes.get_int("group", 1), shape[1])
    repeated = np.repeat(rows, shape[0] // len(rows), axis=0)
    return repeated.reshape(*shape[:2], *[1] * (len(shape) - 2))


def _bias(layer: ir.Node, channels: int) -> Array | None:
    """Return what the layer adds to each channel, None where that is no constant per channel."""
    value = layer.inputs[2] if len(layer.inputs) > 2 else None
    if value is None:
        return np.zeros(channels)
    numbers = _numbers(value)
    if (
        numbers is None
        or numbers.size not in (1, channels)
        or any(d > 1 for d in numbers.shape[:-1])
    ):
        return None
    beta = layer.attributes.get_float("beta", 1.0) if layer.op_type == "Gemm" else 1.0
    return np.broadcast_to(numbers.reshape(-1) * beta, channels)


def _affine(node: ir.Node, data: ir.Value, channels: int, rank: int) -> _Affine | None:
    """Return what a node does to each channel of `data`, None where it does anything else."""
    if node.op_type == "BatchNormalization":
        return _normalization(node, data)
    if node.op_type not in ("Mul", "Add"):
        return None
    holder = node.inputs[1 if node.inputs[0] is data else 0]
    numbers = _numbers(holder)
    if holder is None or numbers is None or numbers.ndim > rank:
        return None
    shape = [1] * (rank - numbers.ndim) + list(numbers.shape)
    if numbers.size not in (1, channels) or shape[1] != numbers.size:
        return None
    row = np.broadcast_to(numbers.reshape(-1), channels)
    if node.op_type == "Mul":
        return _Affine(row, np.zeros(channels), holder, scaling=[holder])
    return _Affine(np.ones(channels), row, holder, shifting=[holder])


def _normalization(node: ir.Node, data: ir.Value) -> _Affine | None:
    parameters = [_numbers(value) for value in node.inputs[1:5]]
    holder = node.inputs[2]
    inference = (
        single_output(node)
        and not node.attributes.get_int("training_mode", 0)
        and node.attributes.get_int("spatial", 1) == 1
    )
    if not inference or node.inputs[0] is not data or holder is None:
        return None
    known = [array for array in parameters if array is not None]
    if len(known) < len(parameters):
        return None
    gamma, beta, mean, variance = known
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    shift = beta - mean * scale
    return _Affine(scale, shift, holder, [node.inputs[1], node.inputs[4]], node.inputs[1:5])


def _store(value: ir.Value, array: npt.NDArray[np.generic]) -> None:
    """Replace the tensor of an initializer."""
    value.const_value = ir.tensor(array, name=value.name)
    value.shape, value.dtype = ir.Shape(array.shape), value.const_value.dtype


def _set_bias(
    graph: ir.Graph, layer: ir.Node, affine: _Affine, bias: npt.NDArray[np.generic], names: Names
) -> None:
    """Give the layer a bias: its own initializer, or the holder where nothing reads it any more."""
    layer.attributes.pop("beta", None)
    old = layer.inputs[2] if len(layer.inputs) > 2 else None
    if old is None and not bias.any():
        return
    sources = origins([old, *affine.scaling, *affine.shifting])
    if old is not None and only_use(old):
        _store(old, bias)
        inherit(old, sources)
        return
    value = old or affine.holder
    if value.uses() or value.is_graph_output():
        value = add_initializer(graph, names.value(f"{value.name}_{layer.name}"), bias)
    else:
        _store(value, bias)
    inherit(value, sources)
    layer.resize_inputs(3)
    layer.replace_input_with(2, value)

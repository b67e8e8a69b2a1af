"""Convolutions and matrix products: what a node sums, as blocks of weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import Array, Mask
from irprune.queries import constant_of


@dataclass(frozen=True)
class Linear:
    """A node that multiplies data by a constant weight and sums along one axis of the data.

    Seen as blocks, the weight has shape ``(groups, rows, columns, taps)``: channel
    ``g * columns + c`` of the data contributes to channel ``g * rows + r`` of the output through
    its taps.
    """

    node: ir.Node
    data: int
    """Input number of the data."""
    data_axis: int
    weight: ir.Value
    """The initializer that holds the weight; the node reads it, or its transpose."""
    rows_first: bool
    """A weight of rank 2 has its rows on axis 0."""
    output_axis: int | None
    """Axis of the output that the rows stand along; None where rows are no output channels."""
    groups: int
    uniform: bool
    """Each output position sums every tap: a constant channel adds the same everywhere."""
    factor: float = 1.0
    """The node multiplies the sum by this."""

    def weights(self) -> Array:
        """Return the weight tensor; each call may read it anew from where it is stored."""
        array = constant_of(self.weight)
        assert array is not None
        return array

    @cached_property
    def used(self) -> Mask:
        """Which columns each row reads with any weight, shape ``(groups, rows, columns)``."""
        blocks = self.blocks(self.weights())
        return np.asarray(
            blocks[..., 0] != 0 if blocks.shape[3] == 1 else (blocks != 0).any(axis=3)
        )

    def blocks(self, weight: Array) -> Array:
        """Return a view of a contiguous weight, shape ``(groups, rows, columns, taps)``."""
        shape, groups = weight.shape, self.groups
        if self.node.op_type == "Conv":
            return weight.reshape(groups, shape[0] // groups, shape[1], -1)
        if self.node.op_type == "ConvTranspose":
            return weight.reshape(groups, shape[0] // groups, shape[1], -1).swapaxes(1, 2)
        if len(shape) == 1:
            return weight[None, None, :, None]
        if len(shape) > 2:
            inner = (shape[-1], 1) if self.data == 1 else shape[-2:]
            return weight.reshape(1, -1, *inner)
        return (weight if self.rows_first else weight.T)[None, :, :, None]


def is_constant(value: ir.Value | None) -> bool:
    """Return whether a value is an initializer with numbers, without reading them."""
    return value is not None and value.is_initializer() and value.const_value is not None


def padless(node: ir.Node) -> bool:
    """Return whether a window op pads nothing at the borders."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    return auto in ("NOTSET", "VALID", "") and not any(node.attributes.get_ints("pads") or ())


def linear_of(node: ir.Node) -> Linear | None:
    """Return how a Conv, ConvTranspose, Gemm or MatMul node sums its data; None without weight."""
    if node.op_type in ("Conv", "ConvTranspose"):
        weight, groups = node.inputs[1], node.attributes.get_int("group", 1)
        if weight is None or not is_constant(weight):
            return None
        return Linear(node, 0, 1, weight, True, 1, groups, _uniform(node))
    if node.op_type not in ("Gemm", "MatMul"):
        return None
    left, right = (_initializer(value) for value in node.inputs[:2])
    if (left is None) == (right is None):
        return None
    data = 0 if left is None else 1
    found = right if left is None else left
    assert found is not None
    weight, turned = found
    if node.op_type == "MatMul":
        return _matmul(node, data, weight, turned)
    transposed = [node.attributes.get_int(name, 0) != 0 for name in ("transA", "transB")]
    axis = int(transposed[data] != (data == 0))
    rows_first = (data == 1) != (transposed[1 - data] != turned)
    alpha = node.attributes.get_float("alpha", 1.0)
    return Linear(node, data, axis, weight, rows_first, 1 - data, 1, True, alpha)


def _initializer(value: ir.Value | None) -> tuple[ir.Value, bool] | None:
    """Return the initializer that a value is, or that of rank 2 which it is the transpose of."""
    if value is not None and is_constant(value):
        return value, False
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return None
    source, order = node.inputs[0], node.attributes.get_ints("perm") or (1, 0)
    if source is None or not is_constant(source) or len(source.shape or ()) != 2:
        return None
    return (source, True) if tuple(order) == (1, 0) else None


def _matmul(node: ir.Node, data: int, weight: ir.Value, turned: bool) -> Linear:
    value, output = node.inputs[data], node.outputs[0]
    assert value is not None and value.shape is not None and output.shape is not None
    rank = len(value.shape)
    axis = rank - 1 if data == 0 else max(rank - 2, 0)
    last = data == 0 or rank == 1
    plain = len(weight.shape or ()) == 2
    output_axis = len(output.shape) - (1 if last else 2) if plain else None
    return Linear(node, data, axis, weight, (data == 1) != turned, output_axis, 1, True)


def _uniform(node: ir.Node) -> bool:
    """Return whether every output position of a convolution sees every tap of the data."""
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    point = all(weight.shape[k] == 1 for k in range(2, len(weight.shape)))
    if node.op_type == "Conv":
        same = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
        return padless(node) or (point and same)
    strides = node.attributes.get_ints("strides") or ()
    added = node.attributes.get_ints("output_padding") or ()
    sized = "output_shape" in node.attributes
    return point and padless(node) and not sized and not any(added) and all(s == 1 for s in strides)

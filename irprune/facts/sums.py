"""Convolutions and matrix products: what a node sums, as blocks of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import Array, Facts, Mask, Numbers, bit_patterns, chain, digest, scramble
from irprune.facts.flow import dtype_of, identity
from irprune.facts.windows import padless
from irprune.walk import constant_of

if TYPE_CHECKING:
    from irprune.facts.flow import Flow, Transfer

_CHUNK = 1 << 16


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
    weight: int
    """Input number of the weight."""
    output_axis: int | None
    """Axis of the output that the rows stand along; None where rows are no output channels."""
    groups: int
    uniform: bool
    """Each output position sums every tap: a constant channel adds the same everywhere."""
    factor: float = 1.0
    """The node multiplies the sum by this."""

    @property
    def weights(self) -> Array:
        """The weight tensor."""
        value = constant_of(self.node.inputs[self.weight])
        assert value is not None
        return value

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
            inner = (shape[-1], 1) if self.weight == 0 else shape[-2:]
            return weight.reshape(1, -1, *inner)
        rows_first = (self.weight == 0) != bool(_transposed(self.node, self.weight))
        return (weight if rows_first else weight.T)[None, :, :, None]


def linear_of(node: ir.Node) -> Linear | None:
    """Return how a Conv, ConvTranspose, Gemm or MatMul node sums its data; None without weight."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    if node.op_type.startswith("Conv"):
        if constant_of(node.inputs[1]) is None:
            return None
        return Linear(node, 0, 1, 1, 1, node.attributes.get_int("group", 1), _uniform(node))
    constant = [constant_of(value) is not None for value in node.inputs[:2]]
    if constant[0] == constant[1]:
        return None
    data = 0 if constant[1] else 1
    if node.op_type == "Gemm":
        axis = 1 - _transposed(node, 0) if data == 0 else _transposed(node, 1)
        alpha = node.attributes.get_float("alpha", 1.0)
        return Linear(node, data, axis, 1 - data, 1 - data, 1, True, alpha)
    return _matmul(node, data)


def _transposed(node: ir.Node, index: int) -> int:
    return node.attributes.get_int("transB" if index else "transA", 0)


def _matmul(node: ir.Node, data: int) -> Linear:
    value, weight, output = node.inputs[data], node.inputs[1 - data], node.outputs[0]
    assert value is not None and value.shape is not None and output.shape is not None
    assert weight is not None and weight.shape is not None
    rank = len(value.shape)
    axis = rank - 1 if data == 0 else max(rank - 2, 0)
    last = data == 0 or rank == 1
    output_axis = len(output.shape) - (1 if last else 2) if len(weight.shape) == 2 else None
    return Linear(node, data, axis, 1 - data, output_axis, 1, True)


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


def used(blocks: Array) -> Mask:
    """Return which columns each row reads with any weight, shape ``(groups, rows, columns)``."""
    mask: Mask = blocks[..., 0] != 0 if blocks.shape[3] == 1 else (blocks != 0).any(axis=3)
    return mask


def linear(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """A row whose data are constants where it reads them is a constant; equal rows are equal."""
    seen = linear_of(node)
    if seen is None or seen.output_axis is None:
        return [None]
    data, output = node.inputs[seen.data], node.outputs[0]
    assert data is not None
    length, rank = flow.dims(data)[seen.data_axis], len(flow.dims(output))
    if not isinstance(length, int):
        return [None]
    inputs = flow.of(data).along(seen.data_axis, length)
    blocks = seen.blocks(seen.weights)
    known, const = _constant_rows(seen, blocks, inputs)
    number = _row_numbers(blocks, inputs.number.reshape(seen.groups, -1))
    shape = [1] * rank
    shape[seen.output_axis] = known.size
    bare = Facts.make(known.reshape(shape), const.reshape(shape), number.reshape(shape))
    key = digest(*identity(node, bare, seen.data_axis))
    sums = Facts.make(bare.known, bare.const, chain(key, bare.number))
    return [_with_bias(node, flow, sums, seen.output_axis)]


def _constant_rows(seen: Linear, blocks: Array, inputs: Facts) -> tuple[Mask, Array]:
    """Return which rows are constant and their sums, both of shape ``(groups * rows,)``."""
    const = inputs.const.reshape(seen.groups, 1, -1)
    usable = inputs.known.reshape(const.shape) & (seen.uniform | (const == 0))
    known = ~(used(blocks) & ~usable).any(axis=2)
    sums = np.zeros(known.shape)
    group, row = np.nonzero(known)
    if len(group):
        taps = blocks[group, row].sum(axis=2, dtype=np.float64)
        with np.errstate(all="ignore"):
            products = np.where(taps == 0, 0, taps * const[group, 0].astype(np.float64))
        sums[group, row] = seen.factor * products.sum(axis=1)
    return known.ravel(), sums.ravel()


def _row_numbers(blocks: Array, inputs: Numbers) -> Numbers:
    """Return one number per row from its weights and the numbers of what they multiply.

    ``inputs`` has shape ``(groups, columns)``; the result has shape ``(groups * rows,)``. A sum
    over scrambled bits: zero weights and the order of equal inputs do not count.
    """
    groups, rows, columns, taps = blocks.shape
    order = scramble(np.arange(1, taps + 1, dtype=np.uint64))
    factors = scramble(inputs[:, :, None] + order) | np.uint64(1)
    result = np.empty((groups, rows), np.uint64)
    some_groups = max(1, _CHUNK // max(1, rows * columns * taps))
    some_rows = max(1, _CHUNK // max(1, columns * taps))
    for group in range(0, groups, some_groups):
        for row in range(0, rows, some_rows):
            part = np.s_[group : group + some_groups, row : row + some_rows]
            bits = scramble(bit_patterns(blocks[part]))
            bits *= factors[part[0], None]
            result[part] = bits.sum(axis=(2, 3), dtype=np.uint64)
    return scramble(result.ravel())


def _with_bias(node: ir.Node, flow: Flow, sums: Facts, axis: int) -> Facts | None:
    """Return the facts after the bias is added (Conv: per channel; Gemm: beta C, broadcast)."""
    dtype = dtype_of(node.outputs[0])
    bias = node.inputs[2] if len(node.inputs) > 2 and node.op_type != "MatMul" else None
    if bias is None:
        return Facts.make(sums.known, sums.const.astype(dtype), sums.number)
    rank, length = len(sums.shape), sums.shape[axis]
    if node.op_type == "Gemm":
        beta = node.attributes.get_float("beta", 1.0)
        dims = [1] * (rank - len(flow.dims(bias))) + flow.dims(bias)
        added = flow.of(bias).raised(rank).collapsed([1 - axis])
    else:
        beta, dims = 1.0, [1] * rank
        added = flow.of(bias).along(0, length).reshaped(sums.shape)
    if dims[axis] not in (1, length):
        return None
    if dims[axis] == length:
        added = added.stretched({axis: length})
    const = sums.const + beta * added.const.astype(np.float64)
    number = chain(digest("bias", beta), sums.number, added.number)
    return Facts.make(sums.known & added.known, const.astype(dtype), number)


TRANSFERS: dict[str, Transfer] = dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), linear)

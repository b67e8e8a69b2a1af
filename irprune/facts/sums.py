"""Convolutions and matrix products: constant rows, and rows that are equal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import Array, Facts, Mask, Numbers, bit_patterns, chain, digest, scramble
from irprune.facts.flow import dtype_of, identity
from irprune.facts.linear import Linear

if TYPE_CHECKING:
    from irprune.facts.flow import Flow, Transfer

_CHUNK = 1 << 16
"""Weights are numbered this many at a time, to stay in the cache."""


def linear(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """A row whose data are constants where it reads them is a constant; equal rows are equal."""
    seen = flow.linear(node)
    if seen is None or seen.output_axis is None:
        return [None]
    data, output = node.inputs[seen.data], node.outputs[0]
    assert data is not None
    length, rank = flow.dims(data)[seen.data_axis], len(flow.dims(output))
    if not isinstance(length, int):
        return [None]
    inputs = flow.of(data).along(seen.data_axis, length)
    blocks = seen.blocks(seen.weights())
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
    known = ~(seen.used & ~usable).any(axis=2)
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

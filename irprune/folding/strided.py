"""A tensor flattened and gathered by a run-time index that is its own order: take the detour out.

Exporters write as_strided as Gather(flat, index) with index = Σ stride_k · Range(length_k) along
each axis k. Where the batch is dynamic the index is computed at run time and hides that it is
plain row-major order. Here the first `length_0` rows of the unflattened tensor stand instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from irprune.names import Names
from irprune.queries import Dim, constant_of, dims_of
from irprune.tidy import add_initializer, take_over

_DEEPEST = 32
"""Nodes between an index and the Range behind it, at most."""


@dataclass(frozen=True)
class _Affine:
    """An integer tensor whose element at (i_0, i_1, ...) is offset + Σ strides[k] · i_k."""

    strides: tuple[int, ...]
    offset: int = 0
    length: ir.Value | None = None
    """How many steps its one dynamic axis has, a scalar."""

    def aligned(self, rank: int) -> tuple[int, ...]:
        return (0,) * (rank - len(self.strides)) + self.strides


def unstride(graph: ir.Graph) -> int:
    """Replace such gathers by slices, in place; return how many there were."""
    names = Names(graph)
    return sum(_straighten(graph, names, node) for node in list(graph) if _flat_gather(node))


def _flat_gather(node: ir.Node) -> bool:
    """Whether a node gathers from a tensor that a Reshape has flattened."""
    data = node.inputs[0] if node.op_type == "Gather" and not node.domain else None
    if data is None or len(dims_of(data) or ()) != 1:
        return False
    maker = data.producer()
    return maker is not None and maker.op_type == "Reshape"


def _straighten(graph: ir.Graph, names: Names, gather: ir.Node) -> bool:
    flat, index = gather.inputs[0], gather.inputs[1]
    assert flat is not None and index is not None
    reshape = flat.producer()
    source = None if reshape is None else reshape.inputs[0]
    if source is None:
        return False
    before, after, found = dims_of(source), dims_of(index), _affine(index)
    if not before or not after or found is None or found.length is None or found.offset:
        return False
    rows, size = _numbers(after[1:]), _numbers(before[1:])
    if rows is None or size is None or prod(rows) != prod(size) or not _row_major(found, rows):
        return False
    stem = gather.name or "gather"
    end = _made(graph, names, gather, "Reshape", [found.length, _ints(graph, names, stem, [1])])
    end.dtype, end.shape = ir.DataType.INT64, ir.Shape([1])
    zero = _ints(graph, names, stem, [0])
    part = _made(graph, names, gather, "Slice", [source, zero, end, zero])
    if rows != size:
        part.type, part.shape = source.type, ir.Shape([None, *size])
        target = _ints(graph, names, stem, [0, *rows])
        part = _made(graph, names, gather, "Reshape", [part, target])
    result = gather.outputs[0]
    part.type, part.shape = result.type, result.shape
    take_over(part, result)
    graph.remove(gather, safe=True)
    return True


def _row_major(index: _Affine, rows: Sequence[int]) -> bool:
    """Whether an index counts its positions one by one, rows of lengths ``rows`` each."""
    wanted = [prod(rows[k:]) for k in range(len(rows) + 1)]
    lengths = (0, *rows)
    steps = zip(index.strides, wanted, lengths, strict=True)
    return all(stride == want or length == 1 for stride, want, length in steps)


def _affine(value: ir.Value | None, depth: int = _DEEPEST) -> _Affine | None:
    """Return what an index is made of, None where it is not affine."""
    array = constant_of(value)
    if array is not None:
        return _constant(array)
    node = None if value is None or not depth else value.producer()
    if node is None or value is None or node.domain or value.dtype != ir.DataType.INT64:
        return None
    match node.op_type:
        case "Range":
            start, limit, delta = (constant_of(v) for v in node.inputs)
            counts = start is not None and start == 0 and delta is not None and delta == 1
            known = limit is not None or _is_length(node.inputs[1])
            dynamic = node.inputs[1] if limit is None else None
            return _Affine((1,), 0, dynamic) if counts and known else None
        case "Mul":
            left, right = (_affine(v, depth - 1) for v in node.inputs)
            return _scaled(left, right) or _scaled(right, left)
        case "Add":
            return _sum(*(_affine(v, depth - 1) for v in node.inputs))
        case "Unsqueeze" | "Reshape":
            return _spread(_affine(node.inputs[0], depth - 1), dims_of(value))
    return None


def _constant(array: np.ndarray) -> _Affine | None:
    if array.dtype != np.int64 or not array.size:
        return None
    first = array[(0,) * array.ndim]
    strides, total = [], np.zeros((), np.int64)
    for k, length in enumerate(array.shape):
        second = array[tuple(int(k == axis) for axis in range(array.ndim))] if length > 1 else first
        strides.append(int(second - first))
        shape = [-1 if k == axis else 1 for axis in range(array.ndim)]
        total = total + np.arange(length).reshape(shape) * strides[-1]
    return _Affine(tuple(strides), int(first)) if (array == first + total).all() else None


def _scaled(index: _Affine | None, factor: _Affine | None) -> _Affine | None:
    """Return an index times a scalar constant."""
    if index is None or factor is None or factor.strides or factor.length is not None:
        return None
    by = factor.offset
    return replace(index, strides=tuple(s * by for s in index.strides), offset=index.offset * by)


def _sum(left: _Affine | None, right: _Affine | None) -> _Affine | None:
    if left is None or right is None or (left.length and right.length):
        return None
    rank = max(len(left.strides), len(right.strides))
    pairs = zip(left.aligned(rank), right.aligned(rank), strict=True)
    length = left.length or right.length
    return _Affine(tuple(a + b for a, b in pairs), left.offset + right.offset, length)


def _spread(index: _Affine | None, dims: list[Dim] | None) -> _Affine | None:
    """Return an index of one axis that gets axes of one position around it."""
    long = [k for k, dim in enumerate(dims or ()) if dim != 1]
    if index is None or dims is None or len(index.strides) != 1 or len(long) > 1:
        return None
    stride = index.strides[0]
    return replace(index, strides=tuple(stride if k in long else 0 for k in range(len(dims))))


def _is_length(value: ir.Value | None) -> bool:
    """Whether a value is the length of an axis, as `irprune.folding.rewrite` spells it."""
    gather = None if value is None else value.producer()
    shape = gather.inputs[0] if gather is not None and gather.op_type == "Gather" else None
    maker = None if shape is None else shape.producer()
    return maker is not None and maker.op_type == "Shape" and value is not None and not value.shape


def _numbers(dims: Sequence[Dim]) -> list[int] | None:
    known = [dim for dim in dims if isinstance(dim, int)]
    return known if len(known) == len(dims) else None


def _ints(graph: ir.Graph, names: Names, stem: str, numbers: Sequence[int]) -> ir.Value:
    return add_initializer(graph, names.value(f"{stem}_numbers"), np.array(numbers, np.int64))


def _made(
    graph: ir.Graph, names: Names, before: ir.Node, op: str, inputs: Sequence[ir.Value]
) -> ir.Value:
    """Return the output of a new node before another one."""
    node = ir.node(op, inputs, name=names.node(f"{before.name}_{op}"))
    node.outputs[0].name = names.value(f"{before.name}_{op}")
    graph.insert_before(before, node)
    return node.outputs[0]

"""Batch and head axes merged for the time of one transpose: take the detour out.

Exporters write the transposed keys of (batch, heads, places, width) as Reshape to
(batch * heads, places, width), Transpose, Reshape back. With a dynamic batch the merged axis is
dynamic too, and hides the heads. Here both axes are transposed apart, without the merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from irprune.names import Names
from irprune.ops.reshape import segments
from irprune.queries import Dim, dims_of
from irprune.tidy import add_initializer, only_use, take_over

_COPY, _REST = 0, -1


@dataclass(frozen=True)
class _Detour:
    """Reshape, Transpose, Reshape: `data` becomes `split`, is permuted, and is the result."""

    merge: ir.Node
    transpose: ir.Node
    back: ir.Node
    data: ir.Value
    split: list[Dim]
    perm: list[int]


def unmerge(graph: ir.Graph) -> int:
    """Transpose merged axes apart, in place; return how many detours there were."""
    names = Names(graph)
    count = 0
    for node in list(graph):
        detour = _detour(node) if node.op_type == "Transpose" else None
        if detour is not None:
            count += _straighten(graph, names, detour)
    return count


def _detour(transpose: ir.Node) -> _Detour | None:
    """Return the detour around a Transpose whose merged axis is split again as it was merged."""
    before = transpose.inputs[0]
    merge = None if before is None else before.producer()
    if before is None or merge is None or not only_use(transpose.outputs[0]):
        return None
    (use,) = transpose.outputs[0].uses()
    back, data = use.node, merge.inputs[0]
    if merge.op_type != "Reshape" or back.op_type != "Reshape" or use.idx != 0 or data is None:
        return None
    source, middle = dims_of(data), dims_of(before)
    result = dims_of(back.outputs[0])
    if source is None or middle is None or result is None:
        return None
    merged = _merged(source, middle)
    if merged is None:
        return None
    axis, symbol, factor = merged
    perm = list(transpose.attributes.get_ints("perm") or reversed(range(len(middle))))
    place = perm.index(axis)
    split: list[Dim] = [*middle[:axis], symbol, factor, *middle[axis + 1 :]]
    wide = [k + (k > axis) for k in perm]
    wide.insert(place + 1, axis + 1)
    expected = [split[k] for k in wide]
    same = len(result) == len(expected) and all(
        k == place or (a is not None and a == b)
        for k, (a, b) in enumerate(zip(expected, result, strict=True))
    )
    return _Detour(merge, transpose, back, data, split, wide) if same else None


def _merged(source: Sequence[Dim], middle: Sequence[Dim]) -> tuple[int, Dim, int] | None:
    """Return which axis of a reshape is (symbol, factor) in one, the symbol and the factor."""
    for inner, outer in segments(source, middle):
        first, *rest = (source[k] for k in inner) if len(inner) else (None,)
        axis, *others = outer if len(outer) else (None,)
        known = [d for d in (*rest, *(middle[k] for k in others)) if isinstance(d, int)]
        if axis is None or isinstance(middle[axis], int) or not isinstance(first, str):
            continue
        if middle[axis] == first or len(known) < len(rest) + len(others):
            continue
        factor, odd = divmod(prod(known[: len(rest)]), prod(known[len(rest) :]))
        if not odd and factor > 1:
            return axis, first, factor
    return None


def _straighten(graph: ir.Graph, names: Names, detour: _Detour) -> bool:
    """Replace the last two nodes; the first one goes with the dead."""
    source = dims_of(detour.data) or []
    target = [_asked(k, dim, source) for k, dim in enumerate(detour.split)]
    if target.count(_REST) > 1:
        return False
    value, made = detour.data, []
    if detour.split != source:
        name = names.value(f"{detour.merge.name}_split")
        shape = add_initializer(graph, name, np.array(target, np.int64))
        reshape = ir.node("Reshape", [value, shape], name=names.node(f"{detour.merge.name}_split"))
        value = reshape.outputs[0]
        value.name = names.value(f"{detour.merge.name}_split")
        value.type, value.shape = detour.data.type, ir.Shape(detour.split)
        made.append(reshape)
    straight = ir.node(
        "Transpose",
        [value],
        {"perm": detour.perm},
        name=names.node(f"{detour.transpose.name}_apart"),
    )
    result, output = detour.back.outputs[0], straight.outputs[0]
    output.name = names.value(f"{result.name}_apart")
    output.type, output.shape = result.type, ir.Shape([detour.split[k] for k in detour.perm])
    graph.insert_before(detour.back, [*made, straight])
    take_over(output, result)
    graph.remove([detour.back, detour.transpose], safe=True)
    return True


def _asked(k: int, dim: Dim, source: Sequence[Dim]) -> int:
    """Return what a Reshape asks for: a number, a copy of the same axis, or what is left."""
    if isinstance(dim, int):
        return dim
    return _COPY if k < len(source) and source[k] == dim else _REST

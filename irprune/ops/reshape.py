"""Reshape, Flatten, Squeeze and Unsqueeze: the same positions under other axes.

A reshape is an index map. Both shapes are cut into minimal segments of equal product; within a
segment the joint label tensor is *factorised* into one label array per output axis, adding the
fewest unions that keep removal rectangular.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from irprune.elements import elements_of
from irprune.labels import Axis, Labelled, Labels, Rows, per_row, shifted
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.queries import Dim
    from irprune.walk import Walk

Segment = tuple[range, range]
"""Consecutive input axes that hold the same positions as consecutive output axes."""


def segments(source: Sequence[Dim], target: Sequence[Dim]) -> list[Segment]:
    """Cut two shapes into minimal segments of equal product; symbols match by name.

    What cannot be matched from the front is matched from the back, and the rest is one segment.
    """
    front, i, j = _match(source, target)
    if i == len(source) and j == len(target):
        return front
    back, m, n = _match(source[i:][::-1], target[j:][::-1])
    last_i, last_j = len(source) - m, len(target) - n
    mirrored = [
        (
            range(len(source) - a.stop, len(source) - a.start),
            range(len(target) - b.stop, len(target) - b.start),
        )
        for a, b in reversed(back)
    ]
    if last_i == i and last_j == j:
        return front + mirrored
    return [*front, (range(i, last_i), range(j, last_j)), *mirrored]


def _match(source: Sequence[Dim], target: Sequence[Dim]) -> tuple[list[Segment], int, int]:
    """Match from the front; return the segments and how many axes of each side they cover."""
    found: list[Segment] = []
    i = j = 0
    while i < len(source) or j < len(target):
        a, b = min(i + 1, len(source)), min(j + 1, len(target))
        while True:
            left, right = _size(source, i, a), _size(target, j, b)
            if left == right:
                break
            # The side that lacks symbols, or else is the smaller, takes its next axis.
            extend_source = left[1] < right[1] or (left[1] == right[1] and left[0] < right[0])
            if extend_source and a < len(source):
                a += 1
            elif not extend_source and b < len(target):
                b += 1
            else:
                return found, i, j
        found.append((range(i, a), range(j, b)))
        i, j = a, b
    return found, i, j


def _size(dims: Sequence[Dim], start: int, stop: int) -> tuple[int, Counter[object]]:
    """Return the product of the known lengths and the symbols; an unknown equals nothing."""
    part = dims[start:stop]
    symbols = Counter(object() if d is None else d for d in part if not isinstance(d, int))
    return prod(d for d in part if isinstance(d, int)), symbols


def factorise(walk: Walk, joint: Labels, dims: Sequence[int], key: str) -> list[Labelled]:
    """Give each output axis of a segment its labels, from the joint labels of its positions.

    Where the last axis carries the channels, they may differ per index of the axes before it.

    Args:
        joint: labels in row-major order, shape ``(prod(dims),)``.
        dims: lengths of the output axes.
        key: names the decision among several decisions of one node.
    """
    axes: list[Labelled] = [np.zeros(d, np.int64) for d in dims]
    long = [k for k, d in enumerate(dims) if d > 1]
    if not joint.size:  # nothing at all lies along these axes
        return axes
    if not long:
        walk.pin(joint, "becomes an axis of one position")
        return axes
    if len(long) == 1:
        axes[long[0]] = joint
        return axes
    columns = {k: _columns(joint, dims, k) for k in long}
    if walk.all_pinned(joint):  # the ids lead `explain` to the reason
        return [columns[k][:, 0] if k in columns else axis for k, axis in enumerate(axes)]
    classes = walk.union_find.find(joint)
    for k in long:
        rows = _columns(classes, dims, k)
        if (rows == rows[:, :1]).all():
            axes[k] = columns[k][:, 0]
            return axes
    chosen = walk.choose(key, long[::-1] if walk.heads == "inner" else long)
    for k in long:
        axes[k] = candidate = walk.fresh(dims[k])
        if k == chosen == long[-1]:
            axes[k] = _last(walk, joint, [dims[k] for k in long], tuple(long[:-1]))
            candidate = joint
        elif k == chosen:
            walk.unify(np.repeat(candidate, columns[k].shape[1]), columns[k].ravel())
        elif not walk.probing:
            walk.pin(candidate, "shares a split axis with the one that carries the channels")
        walk.offer(key, {k: candidate})
    return axes


def _last(walk: Walk, joint: Labels, dims: Sequence[int], per: tuple[int, ...]) -> Labelled:
    """Let the last axis carry the channels: which ones may differ per index of those before."""
    labels = joint.reshape(dims)
    walk.balance(labels.reshape(-1, dims[-1]))
    return Rows(per, labels)


def _columns(joint: Labels, dims: Sequence[int], axis: int) -> Labels:
    """Return the labels met at each index of an axis, shape ``(dims[axis], others)``."""
    columns: Labels = np.moveaxis(joint.reshape(dims), axis, 0).reshape(dims[axis], -1)
    return columns


def _joint(walk: Walk, axes: Sequence[Labels], key: str) -> Labels:
    """Return the labels of a segment's positions; one free input axis can be followed."""
    dims = [len(axis) for axis in axes]
    for axis in axes:
        if len(axis) == 1:
            walk.pin(axis, "is an axis of one position that a reshape drops")
    wanted = list(range(len(dims)))
    if walk.heads == "inner":
        wanted.sort(key=lambda k: -dims[k])
    free = {k: axes[k] for k in wanted if not walk.all_pinned(axes[k])}
    if not free:
        free = {k: axes[k] for k in sorted(wanted, key=lambda k: -dims[k])[:1]}
    chosen = next(iter(free))
    if len(free) > 1:
        decided = walk.choose(key, list(free))
        walk.offer(key, free)
        # An axis may have been pinned since an earlier walk decided for it.
        chosen = decided if decided in free else chosen
        for k, axis in free.items():
            if k != chosen and not walk.probing:
                walk.pin(axis, "merges with another axis that carries the channels")
    shape = [1] * len(dims)
    shape[chosen] = dims[chosen]
    return np.broadcast_to(free[chosen].reshape(shape), dims).ravel()


def _merged(walk: Walk, axes: Sequence[Labelled], first: int, key: str) -> Labels:
    """Return the labels of a segment's positions, the segment starting at axis ``first``.

    Rows per an axis before their own stay as they are: each is a stretch of the result. Other
    rows are tied, or removal would change the order of what stays.
    """
    dims = [len(axis) if axis is not None else 0 for axis in axes]
    ordered = [
        k
        for k, axis in enumerate(axes)
        if isinstance(axis, Rows)
        and first <= min(axis.per) <= max(axis.per) < first + k
        and not walk.all_pinned(axis)
    ]
    others = [axis for k, axis in enumerate(axes) if k not in ordered and not walk.all_pinned(axis)]
    if len(ordered) == 1 and not others:
        rows = axes[ordered[0]]
        assert isinstance(rows, Rows)
        shape = [1] * len(dims)
        for k in (*(p - first for p in rows.per), ordered[0]):
            shape[k] = dims[k]
        return np.broadcast_to(rows.labels.reshape(shape), dims).ravel()
    known = [axis for axis in map(walk.tied, axes) if axis is not None]
    return _joint(walk, known, key)


def _carried(
    walk: Walk,
    axis: Labelled,
    cuts: Sequence[Segment],
    source: Sequence[Dim],
    target: Sequence[Dim],
) -> Labelled:
    """Return an axis that a reshape leaves alone, its rows per the axes of the target."""
    if not isinstance(axis, Rows):
        return axis
    shape: list[int] = []
    lengths: list[int] = []
    per: dict[int, int] = {}
    for inner, outer in cuts:
        if not set(axis.per).intersection(inner):
            continue
        before = {k: d for k in inner if isinstance(d := source[k], int)}
        after = {k: d for k in outer if isinstance(d := target[k], int)}
        if len(before) < len(inner) or len(after) < len(outer):
            return walk.tied(axis)
        shape += [d if k in axis.per else 1 for k, d in before.items()]
        lengths += before.values()
        per |= {k: d for k, d in after.items() if d != 1}
    rows = np.broadcast_to(axis.labels.reshape(*shape, len(axis)), (*lengths, len(axis)))
    return per_row(tuple(per), rows.reshape(*per.values(), len(axis)))


def reshape_axes(
    walk: Walk,
    axes: Sequence[Labelled],
    source: Sequence[Dim],
    target: Sequence[Dim],
    key: str = "",
) -> list[Labelled]:
    """Return the labels after a reshape from ``source`` to ``target`` dimensions."""
    result: list[Labelled] = [None] * len(target)
    cuts = segments(source, target)
    for inner, outer in cuts:
        parts = [axes[k] for k in inner]
        dims = [target[k] for k in outer]
        if len(parts) == 1 and len(dims) == 1 and source[inner[0]] == dims[0]:
            result[outer[0]] = _carried(walk, parts[0], cuts, source, target)
            continue
        lengths = [d for d in dims if isinstance(d, int)]
        known = [p for p in parts if p is not None]
        if len(known) < len(parts) or len(lengths) < len(dims) or not parts:
            tied = [walk.tied(part) for part in parts]
            split = _dynamic(walk, tied, dims, f"{key}{outer.start}")
            for k, axis in zip(outer, shifted(split, outer.start), strict=True):
                result[k] = axis
            continue
        joint = _merged(walk, known, inner.start, f"{key}merge{inner.start}")
        split = factorise(walk, joint, lengths, f"{key}split{outer.start}")
        for k, axis in zip(outer, shifted(split, outer.start), strict=True):
            result[k] = axis
    return result


def _dynamic(walk: Walk, parts: Sequence[Axis], dims: Sequence[Dim], key: str) -> list[Labelled]:
    """Return the labels of a segment with dynamic axes: only its last axes can be followed.

    In row-major order a position among the last S of the input is, modulo T, one among the last T
    of the output, whatever stands before them, where S is a multiple of T or T one of S.
    """
    result: list[Labelled] = [walk.fresh(d) if isinstance(d, int) else None for d in dims]
    tail, last = _tail([None if part is None else len(part) for part in parts]), _tail(dims)
    size, length = prod(tail), prod(last)
    if not (tail and last and size * length) or (size % length and length % size):
        tail, last = [], []
    start, stop = len(parts) - len(tail), len(dims) - len(last)
    added = "is an axis of one position that a reshape adds"
    reason = "is reshaped together with a dynamic axis" if parts else added
    for axis in (*parts[:start], *result[:stop]):
        walk.pin(axis, reason)
    if tail:
        joint = _joint(walk, [part for part in parts[start:] if part is not None], f"{key}merge")
        period = joint[: min(size, length)]
        walk.unify(np.resize(period, size), joint)
        split = factorise(walk, np.resize(period, length), last, f"{key}split")
        result[stop:] = shifted(split, stop)
    return result


def _tail(dims: Sequence[Dim]) -> list[int]:
    """Return the lengths of the last axes, from the last dynamic one on."""
    known: list[int] = []
    for dim in reversed(dims):
        if not isinstance(dim, int):
            break
        known.insert(0, dim)
    return known


def _same_axes(node: ir.Node, source: list[Dim], target: list[Dim]) -> tuple[list[Dim], list[Dim]]:
    """Name the unknown dimensions that a Squeeze or Unsqueeze keeps, so that they match."""
    axes: Sequence[int | None] | None = node.attributes.get_ints("axes")
    if axes is None and len(node.inputs) > 1:
        axes = elements_of(node.inputs[1])
    rank = max(len(source), len(target))
    if axes is None or None in axes or abs(len(source) - len(target)) != len(axes):
        return source, target
    changed = {axis % rank for axis in axes if axis is not None}
    shorter, longer = sorted((source, target), key=len)
    kept = [k for k in range(rank) if k not in changed]
    for short, long in enumerate(kept):
        if shorter[short] is None and longer[long] is None:
            shorter[short] = longer[long] = f"axis {long} of {node.name}"
    return source, target


class Reshape(Rule):
    """Reshape, Flatten, Squeeze and Unsqueeze differ only in how they name the output shape."""

    ops = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        source, target = walk.dims(data), walk.dims(output)
        if node.op_type in ("Squeeze", "Unsqueeze"):
            source, target = _same_axes(node, source, target)
        walk.set(output, reshape_axes(walk, walk.rows(data), source, target))

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        if node.op_type == "Reshape" and edit.touched(node):
            edit.set_shape_input(node, 1, self._asked(node, edit), keep=(-1,))
        elif node.op_type == "Squeeze" and edit.touched(node):
            self._name_squeezed(node, edit)

    @staticmethod
    def _asked(node: ir.Node, edit: Edit) -> list[int | None]:
        """Return the output's lengths; None where a zero still copies the right one."""
        lengths, old = edit.lengths(node.outputs[0]), edit.constant(node.inputs[1])
        if old is not None and node.inputs[0] is not None:
            before = edit.lengths(node.inputs[0])
            for k in np.flatnonzero(old == 0):
                if k < len(before) and before[k] == lengths[k]:
                    lengths[k] = None
        return lengths

    @staticmethod
    def _name_squeezed(node: ir.Node, edit: Edit) -> None:
        """Name the axes that a bare Squeeze drops: it would drop one that shrinks to length 1."""
        data = node.inputs[0]
        assert data is not None and data.shape is not None
        if "axes" in node.attributes or (len(node.inputs) > 1 and node.inputs[1] is not None):
            return
        axes = [k for k, dim in enumerate(data.shape) if dim == 1]
        if edit.opset >= 13:
            edit.set_constant(node, 1, axes)
        else:
            edit.set_attribute(node, "axes", axes)


RULES = (Reshape(),)

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

from irprune.labels import Axis, Labels
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Dim, Walk

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


def factorise(walk: Walk, joint: Labels, dims: Sequence[int], key: str) -> list[Axis]:
    """Give each output axis of a segment its labels, from the joint labels of its positions.

    Args:
        joint: labels in row-major order, shape ``(prod(dims),)``.
        dims: lengths of the output axes.
        key: names the decision among several decisions of one node.
    """
    axes: list[Axis] = [np.zeros(d, np.int64) for d in dims]
    long = [k for k, d in enumerate(dims) if d > 1]
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
    wanted = long[::-1] if walk.heads == "inner" else long
    candidates = {k: walk.fresh(dims[k]) for k in wanted}
    chosen = walk.choose(key, candidates)
    for k in long:
        if k == chosen:
            walk.unify(np.repeat(candidates[k], columns[k].shape[1]), columns[k].ravel())
        elif not walk.probing:
            walk.pin(candidates[k], "shares a split axis with the one that carries the channels")
        axes[k] = candidates[k]
    return axes


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
        decided = walk.choose(key, free)
        # An axis may have been pinned since an earlier walk decided for it.
        chosen = decided if decided in free else chosen
        for k, axis in free.items():
            if k != chosen and not walk.probing:
                walk.pin(axis, "merges with another axis that carries the channels")
    shape = [1] * len(dims)
    shape[chosen] = dims[chosen]
    return np.broadcast_to(free[chosen].reshape(shape), dims).ravel()


def _follow_last(walk: Walk, parts: Sequence[Axis], dims: Sequence[Dim], key: str) -> list[Axis]:
    """Reshape a segment with dynamic axes: only the sized axes after the last of them may pass.

    A position there is the position in the whole segment modulo their product, so it can be
    followed where one side's product divides the other's, as in ``(batch, heads * width)`` to
    ``(batch * heads, width)``.
    """
    first = 1 + max((k for k, part in enumerate(parts) if part is None), default=-1)
    last = 1 + max((k for k, dim in enumerate(dims) if not isinstance(dim, int)), default=-1)
    known = [part for part in parts[first:] if part is not None]
    sized = [dim for dim in dims[last:] if isinstance(dim, int)]
    before, after = prod(map(len, known)), prod(sized)
    whole = max(before, after)
    follows = min(before, after) > 1 and not whole % before and not whole % after
    result: list[Axis] = [walk.fresh(d) if isinstance(d, int) else None for d in dims]
    for axis in (*parts, *result) if not follows else (*parts[:first], *result[:last]):
        walk.pin(axis, "is reshaped together with a dynamic axis")
    if follows:
        joint = np.tile(_joint(walk, known, f"{key}merge"), whole // before).reshape(-1, after)
        walk.unify(np.tile(joint[0], len(joint)), joint.ravel())
        result[last:] = factorise(walk, joint[0], sized, f"{key}split")
    return result


def reshape_axes(
    walk: Walk, axes: Sequence[Axis], source: Sequence[Dim], target: Sequence[Dim], key: str = ""
) -> list[Axis]:
    """Return the labels after a reshape from ``source`` to ``target`` dimensions."""
    result: list[Axis] = [None] * len(target)
    for inner, outer in segments(source, target):
        parts = [axes[k] for k in inner]
        dims = [target[k] for k in outer]
        if len(parts) == 1 and len(dims) == 1 and source[inner[0]] == dims[0]:
            result[outer[0]] = parts[0]
            continue
        lengths = [d for d in dims if isinstance(d, int)]
        known = [p for p in parts if p is not None]
        if len(known) < len(parts) or len(lengths) < len(dims) or not parts:
            mixed = _follow_last(walk, parts, dims, f"{key}dynamic{inner.start}")
            for k, axis in zip(outer, mixed, strict=True):
                result[k] = axis
            continue
        joint = _joint(walk, known, f"{key}merge{inner.start}")
        for k, axis in zip(
            outer, factorise(walk, joint, lengths, f"{key}split{outer.start}"), strict=True
        ):
            result[k] = axis
    return result


class Reshape(Rule):
    """Reshape, Flatten, Squeeze and Unsqueeze differ only in how they name the output shape."""

    ops = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        walk.set(output, reshape_axes(walk, walk.axes(data), walk.dims(data), walk.dims(output)))

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

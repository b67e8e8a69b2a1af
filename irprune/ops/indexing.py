"""GatherND, GatherElements, ScatterND and ScatterElements: indexed axes stay, the others pass.

Constant index tuples of GatherND and ScatterND renumber positions, as those of Gather do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis, Labels
from irprune.ops.reshape import factorise
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

_COMPUTED = "is indexed at computed positions"
_WRITTEN = "is written at indexed positions"


def _mapped(walk: Walk, indexed: list[Labels], indices: np.ndarray) -> list[Axis]:
    """Label the axes of the index tuples; one indexed axis may lose positions, the others stay.

    ``indices`` has shape ``(..., len(indexed))``.
    """
    free = [k for k, axis in enumerate(indexed) if not walk.all_pinned(axis)]
    followed = free[0] if free else 0
    for k in free[1:]:
        walk.pin(indexed[k], "is indexed together with another axis that carries channels")
    labels = indexed[followed][indices[..., followed]]
    if not labels.ndim:
        walk.pin(labels.reshape(1), "is selected by a scalar index")
        return []
    axes = factorise(walk, labels.ravel(), list(labels.shape), "index")
    return [walk.tied(axis) for axis in axes]


def _renumber(node: ir.Node, edit: Edit, along: ir.Value | None) -> None:
    """Drop the constant tuples of the positions that ``along`` loses, and renumber the others."""
    data, indices = node.inputs[0], edit.constant(node.inputs[1])
    if indices is None:
        return
    chosen = indices.copy()
    for k in range(indices.ndim - 1):
        kept = edit.kept(along, k)
        if kept is not None:
            chosen = np.compress(kept, chosen, axis=k)
    for k in range(indices.shape[-1]):
        mask = edit.kept(data, k)
        if mask is not None:
            chosen[..., k] = (np.cumsum(mask) - 1)[chosen[..., k]]
    if chosen.shape != indices.shape or not np.array_equal(chosen, indices):
        edit.set_constant(node, 1, chosen)


class GatherND(Rule):
    """Y = X at index tuples: the last axis of the indices ``(..., depth)`` holds one tuple.

    With ``batch_dims`` = b the first b axes belong together; the tuples name the next ``depth``
    axes of X and the rest pass.
    """

    ops = ("GatherND",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = walk.axes(node.inputs[0]), node.outputs[0]
        batch = node.attributes.get_int("batch_dims", 0)
        depth = walk.dims(node.inputs[1])[-1]
        if not isinstance(depth, int):
            walk.pin_node(node, "the number of indexed axes is unknown")
            return
        indexed, rest = data[batch : batch + depth], data[batch + depth :]
        indices = walk.constant(node.inputs[1])
        known = [axis for axis in indexed if axis is not None]
        if indices is not None and not batch and len(known) == depth:
            walk.set(output, [*_mapped(walk, known, indices), *rest])
            return
        places = walk.axes(node.inputs[1])
        for left, right in zip(data[:batch], places[:batch], strict=True):
            walk.unify(left, right)
        for axis in (*indexed, *places[-1:], *(places if indices is not None else ())):
            walk.pin(axis, _COMPUTED)
        walk.set(output, [*places[:-1], *rest])

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        if (node.attributes.get_int("batch_dims", 0) or 0) == 0:
            _renumber(node, edit, node.outputs[0])


class GatherElements(Rule):
    """Y[i][j] = X[indices[i][j]][j] for axis 0: every other axis is shared, where as long."""

    ops = ("GatherElements",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, indices = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
        indexed = node.attributes.get_int("axis", 0) % len(data)
        walk.pin(data[indexed], _COMPUTED)
        for k, (axis, index_axis) in enumerate(zip(data, indices, strict=True)):
            if k != indexed:
                _share(walk, axis, index_axis)
        walk.set(node.outputs[0], indices)


class ScatterElements(Rule):
    """X with X[indices[i][j]][j] = updates[i][j] for axis 0; Scatter is its old name."""

    ops = ("Scatter", "ScatterElements")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, indices, updates = (walk.axes(value) for value in node.inputs[:3])
        indexed = node.attributes.get_int("axis", 0) % len(data)
        for k, axes in enumerate(zip(data, indices, updates, strict=True)):
            if k == indexed:
                for axis in axes:
                    walk.pin(axis, _WRITTEN)
            else:
                walk.unify(axes[1], axes[2])
                _share(walk, axes[0], axes[1])
        walk.set(node.outputs[0], data)


def _share(walk: Walk, axis: Axis, other: Axis) -> None:
    """Tie two axes of equal length; where one covers only a part of the other, both stay."""
    if axis is not None and other is not None and len(axis) != len(other):
        for labels in (axis, other):
            walk.pin(labels, "is indexed in part")
    else:
        walk.unify(axis, other)


class ScatterND(Rule):
    """X with slices written at index tuples: the axes after the indexed ones pass."""

    ops = ("ScatterND",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, updates = walk.axes(node.inputs[0]), walk.axes(node.inputs[2])
        depth = walk.dims(node.inputs[1])[-1]
        if not isinstance(depth, int):
            walk.pin_node(node, "the number of indexed axes is unknown")
            return
        tuples = len(walk.dims(node.inputs[1])) - 1
        leading, passing = updates[:tuples], updates[tuples:]
        indices = walk.constant(node.inputs[1])
        known = [axis for axis in data[:depth] if axis is not None]
        if indices is None or len(known) < depth:
            for axis in (*data[:depth], *leading, *walk.axes(node.inputs[1])):
                walk.pin(axis, _WRITTEN)
        else:
            for axis, update in zip(_mapped(walk, known, indices), leading, strict=True):
                walk.unify(axis, update)
        for axis, update in zip(data[depth:], passing, strict=True):
            walk.unify(axis, update)
        walk.set(node.outputs[0], data)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        _renumber(node, edit, node.inputs[2])


RULES = (GatherND(), GatherElements(), ScatterElements(), ScatterND())

"""GatherND, GatherElements, ScatterND and ScatterElements: indexed axes stay, the others pass.

Constant indices of GatherND renumber positions, as those of Gather do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.reshape import factorise
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

_COMPUTED = "is indexed at computed positions"
_WRITTEN = "is written at indexed positions"


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
            walk.set(output, [*self._mapped(walk, known, indices), *rest])
            return
        places = walk.axes(node.inputs[1])
        for left, right in zip(data[:batch], places[:batch], strict=True):
            walk.unify(left, right)
        for axis in (*indexed, *places[-1:], *(places if indices is not None else ())):
            walk.pin(axis, _COMPUTED)
        walk.set(output, [*places[:-1], *rest])

    @staticmethod
    def _mapped(walk: Walk, indexed: list[np.ndarray], indices: np.ndarray) -> list[Axis]:
        """Follow one indexed axis that may lose positions; the others stay."""
        free = [k for k, axis in enumerate(indexed) if not walk.all_pinned(axis)]
        followed = free[0] if free else 0
        for k in free[1:]:
            walk.pin(indexed[k], "is indexed together with another axis that carries channels")
        labels = indexed[followed][indices[..., followed]]
        if not labels.ndim:
            walk.pin(labels.reshape(1), "is selected by a scalar index")
            return []
        return factorise(walk, labels.ravel(), list(labels.shape), "gather")

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data, output = node.inputs[0], node.outputs[0]
        indices = edit.constant(node.inputs[1])
        if indices is None or (node.attributes.get_int("batch_dims", 0) or 0) > 0:
            return
        chosen = indices.copy()
        for k in range(indices.ndim - 1):
            kept = edit.kept(output, k)
            if kept is not None:
                chosen = np.compress(kept, chosen, axis=k)
        for k in range(indices.shape[-1]):
            mask = edit.kept(data, k)
            if mask is not None:
                chosen[..., k] = (np.cumsum(mask) - 1)[chosen[..., k]]
        if chosen.shape != indices.shape or not np.array_equal(chosen, indices):
            edit.set_constant(node, 1, chosen)


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
        data, places, updates = (walk.axes(value) for value in node.inputs[:3])
        depth = walk.dims(node.inputs[1])[-1]
        if not isinstance(depth, int):
            walk.pin_node(node, "the number of indexed axes is unknown")
            return
        for axis in (*data[:depth], *places, *updates[: len(places) - 1]):
            walk.pin(axis, _WRITTEN)
        passing = zip(data[depth:], updates[len(places) - 1 :], strict=True)
        for axis, update in passing:
            walk.unify(axis, update)
        walk.set(node.outputs[0], data)


RULES = (GatherND(), GatherElements(), ScatterElements(), ScatterND())

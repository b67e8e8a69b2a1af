"""Gather by constant indices (positions are renumbered) or by computed ones (the axis stays)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis, Labelled, Rows, moved, selected, without
from irprune.ops.reshape import factorise
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


def _of(own: int, labels: Labelled) -> tuple[int, ...]:
    """Return the axes that the labels of an axis depend on."""
    return (own, *labels.per) if isinstance(labels, Rows) else (own,)


class Gather(Rule):
    """Y = X indexed along ``axis`` by an index tensor of any rank."""

    ops = ("Gather",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data = walk.rows(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(data)
        indices = walk.constant(node.inputs[1])
        if indices is not None and indices.ndim == 0 and data[axis] is not None:
            walk.set(node.outputs[0], self._selected(walk, data, axis, int(indices)))
            return
        # An index of any other rank counts all rows' positions alike.
        data = [walk.tied(a) if axis in _of(k, a) else a for k, a in enumerate(data)]
        labels = walk.tied(data[axis])
        gathered: list[Axis]
        if indices is None or labels is None:
            walk.pin(labels, "is gathered at computed positions")
            index_axes = walk.axes(node.inputs[1])
            for index_axis in index_axes if indices is not None else ():
                walk.pin(index_axis, "indexes a dynamic axis")
            gathered = list(index_axes)
        else:
            joint = labels[indices].ravel()
            gathered = [walk.tied(a) for a in factorise(walk, joint, list(indices.shape), "gather")]
        more = len(gathered) - 1
        others = [moved(labels, lambda k: k + more if k > axis else k) for labels in data]
        walk.set(node.outputs[0], [*others[:axis], *gathered, *others[axis + 1 :]])

    @staticmethod
    def _selected(walk: Walk, data: list[Labelled], axis: int, index: int) -> list[Labelled]:
        """Return the axes after a scalar index, which drops its axis."""
        data = [walk.tied(a) if k == axis else a for k, a in enumerate(data)]
        chosen = selected(data, axis, np.array([index]))
        walk.pin(chosen[axis], "is selected by a scalar index")
        dropped = [without(labels, axis) for labels in chosen]
        return dropped[:axis] + dropped[axis + 1 :]

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        """Rows of a table looked up at computed positions: its columns are the channels."""
        table, indices = node.inputs[0], node.inputs[1]
        assert table is not None and table.shape is not None and indices is not None
        rank = len(table.shape)
        last = node.attributes.get_int("axis", 0) % rank == rank - 1
        looked_up = table.is_initializer() and not indices.is_initializer()
        return ((0, rank - 1),) if looked_up and not last else ()

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data, output = node.inputs[0], node.outputs[0]
        indices = edit.constant(node.inputs[1])
        if indices is None or data is None or data.shape is None:
            return
        axis = node.attributes.get_int("axis", 0) % len(data.shape)
        mask = edit.kept(data, axis)
        chosen = indices
        for k in range(indices.ndim):
            kept = edit.kept(output, axis + k)
            if kept is not None:
                chosen = np.compress(kept, chosen, axis=k)
        if mask is not None:
            chosen = (np.cumsum(mask) - 1)[chosen]
        if chosen.shape != indices.shape or not np.array_equal(chosen, indices):
            edit.set_constant(node, 1, chosen)


RULES = (Gather(),)

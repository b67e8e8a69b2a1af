"""Gather by constant indices (positions are renumbered) or by computed ones (the axis stays)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.reshape import factorise
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


class Gather(Rule):
    """Y = X indexed along ``axis`` by an index tensor of any rank."""

    ops = ("Gather",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data = walk.axes(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(data)
        indices = walk.constant(node.inputs[1])
        labels = data[axis]
        gathered: list[Axis]
        if indices is None or labels is None:
            walk.pin(labels, "is gathered at computed positions")
            index_axes = walk.axes(node.inputs[1])
            for index_axis in index_axes if indices is not None else ():
                walk.pin(index_axis, "indexes a dynamic axis")
            gathered = list(index_axes)
        elif indices.ndim == 0:
            walk.pin(labels[indices.reshape(1)], "is selected by a scalar index")
            gathered = []
        else:
            gathered = factorise(walk, labels[indices].ravel(), list(indices.shape), "gather")
        walk.set(node.outputs[0], [*data[:axis], *gathered, *data[axis + 1 :]])

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

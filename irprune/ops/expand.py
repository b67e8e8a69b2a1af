"""Expand and Tile: positions that are copies of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.elements import elements_of
from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


class Expand(Rule):
    """Axes of one position are stretched: the copies can be removed by asking for fewer."""

    ops = ("Expand",)
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        output = node.outputs[0]
        dims, given = walk.dims(output), walk.axes(node.inputs[0])
        axes: list[Axis] = [np.zeros(1, np.int64) for _ in range(len(dims) - len(given))]
        axes += given
        result: list[Axis] = []
        for axis, dim in zip(axes, dims, strict=True):
            if axis is None or not isinstance(dim, int):
                walk.pin(axis, "is expanded to a dynamic length")
                result.append(None if not isinstance(dim, int) else np.zeros(dim, np.int64))
            elif len(axis) == dim:
                result.append(axis)
            else:
                walk.pin(axis, "is broadcast along a longer axis")
                result.append(walk.fresh(dim))
        walk.set(output, result)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        shape = node.inputs[1]
        if shape is None or shape.shape is None or not edit.touched(node):
            return
        lengths = edit.lengths(node.outputs[0])
        asked = shape.shape[0]
        assert isinstance(asked, int)
        edit.set_shape_input(node, 1, lengths[len(lengths) - asked :], keep=(1,))


class Tile(Rule):
    """Each axis is repeated as a whole: every copy carries the labels of the original."""

    ops = ("Tile",)
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes, repeats = walk.axes(node.inputs[0]), elements_of(node.inputs[1])
        if repeats is None:
            walk.pin_node(node, "the repeats are computed at run time")
            return
        result: list[Axis] = []
        for axis, times in zip(axes, repeats, strict=True):
            if axis is None or times is None:
                walk.pin(axis, "is repeated as often as is computed at run time")
                result.append(None)
            else:
                result.append(np.tile(axis, times))
        walk.set(node.outputs[0], result)


RULES = (Expand(), Tile())

"""Constant, ConstantOfShape and Shape: tensors made from nothing, and lengths that are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


class Constant(Rule):
    """A constant that was not lifted to an initializer stays whole."""

    ops = ("Constant",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        walk.pin_node(node, "is a Constant node; run normalize to make it an initializer")


class ConstantOfShape(Rule):
    """One number everywhere: any position of an axis of known length can go."""

    ops = ("ConstantOfShape",)
    lengths = (0,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        dims = walk.dims(node.outputs[0])
        walk.set(node.outputs[0], [walk.fresh(d) if isinstance(d, int) else None for d in dims])

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        if edit.touched(node):
            edit.set_shape_input(node, 0, edit.lengths(node.outputs[0]))


class Shape(Rule):
    """Lengths that someone reads stay; reading a dynamic axis alone pins nothing."""

    ops = ("Shape",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        start = node.attributes.get_int("start", 0)
        read = range(len(axes))[start : node.attributes.get_int("end", len(axes))]
        for k in self._used(node, walk, read):
            walk.pin(axes[k], "its length is read by Shape")
        walk.set(node.outputs[0], [np.zeros(len(read), np.int64)])

    @staticmethod
    def _used(node: ir.Node, walk: Walk, read: range) -> set[int]:
        """Return the axes whose length reaches a consumer other than a constant Gather."""
        used: set[int] = set()
        for consumer, index in node.outputs[0].uses():
            indices = walk.constant(consumer.inputs[1]) if len(consumer.inputs) > 1 else None
            if consumer.op_type != "Gather" or index != 0 or indices is None:
                return set(read)
            used.update(read[int(i)] for i in indices.ravel())
        return set(read) if node.outputs[0].is_graph_output() else used


class Size(Rule):
    """The number of elements: every axis counts."""

    ops = ("Size",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        walk.pin_node(node, "its number of elements is read by Size")


RULES = (Constant(), ConstantOfShape(), Shape(), Size())

"""Softmax, LogSoftmax, Hardmax and LRN take statistics over channels: they are inexact there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irprune.ops.rule import Rule, Statistic, opset_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


class Softmax(Rule):
    """Normalised over one axis; before opset 13 over that axis and all that follow."""

    ops = ("Softmax", "LogSoftmax", "Hardmax")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        for axis in self._axes(node):
            walk.inexact(node, axes[axis], f"is normalised by {node.op_type}")
        walk.set(node.outputs[0], axes)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return tuple(Statistic(0, axis, results=((0, axis),)) for axis in self._axes(node))

    @staticmethod
    def _axes(node: ir.Node) -> range:
        data = node.inputs[0]
        assert data is not None and data.shape is not None
        trailing = opset_of(node) < 13
        axis = node.attributes.get_int("axis", 1 if trailing else -1) % len(data.shape)
        return range(axis, len(data.shape) if trailing else axis + 1)


class LRN(Rule):
    """Each channel is divided by a sum over its neighbours along axis 1."""

    ops = ("LRN",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        walk.inexact(node, axes[1], "is normalised over neighbouring channels by LRN")
        walk.set(node.outputs[0], axes)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return (Statistic(0, 1, results=((0, 1),)),)


RULES = (Softmax(), LRN())

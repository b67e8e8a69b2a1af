"""Softmax, LogSoftmax, Hardmax and LRN take statistics over channels: inexact, so they pin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


class Softmax(Rule):
    """Normalised over one axis; before opset 13 over that axis and all that follow."""

    ops = ("Softmax", "LogSoftmax", "Hardmax")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        trailing = walk.opset < 13
        axis = node.attributes.get_int("axis", 1 if trailing else -1) % len(axes)
        for labels in axes[axis:] if trailing else axes[axis : axis + 1]:
            walk.pin(labels, f"is normalised by {node.op_type}")
        walk.set(node.outputs[0], axes)


class LRN(Rule):
    """Each channel is divided by a sum over its neighbours along axis 1."""

    ops = ("LRN",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        walk.pin(axes[1], "is normalised over neighbouring channels by LRN")
        walk.set(node.outputs[0], axes)


RULES = (Softmax(), LRN())

"""BatchNormalization and InstanceNormalization: per-channel parameters, statistics elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


class BatchNormalization(Rule):
    """Y = scale (X - mean) / sqrt(var + epsilon) + B, per channel (axis 1), at inference."""

    ops = ("BatchNormalization",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1:
            walk.pin_node(node, "a BatchNormalization in training mode is not analysed")
            return
        if not node.attributes.get_int("spatial", 1):
            walk.pin_node(node, "a BatchNormalization per position is not analysed")
            return
        x = walk.axes(node.inputs[0])
        for parameter in node.inputs[1:]:
            walk.unify(x[1], walk.axes(parameter)[0])
        walk.set(node.outputs[0], x)


class InstanceNormalization(Rule):
    """Statistics over the spatial axes of each channel, then scale and B per channel (axis 1)."""

    ops = ("InstanceNormalization",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x = walk.axes(node.inputs[0])
        for parameter in node.inputs[1:]:
            walk.unify(x[1], walk.axes(parameter)[0])
        for axis in x[2:]:
            walk.pin(axis, "takes part in InstanceNormalization statistics")
        walk.set(node.outputs[0], x)


RULES = (BatchNormalization(), InstanceNormalization())

"""Sampling at computed places: channels (axis 1) pass, places and what they are read from stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irprune.ops.along import pinned
from irprune.ops.reshape import reshape_axes
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


def _sampled(node: ir.Node, walk: Walk) -> None:
    """Pin every axis of the data but the channels, and every axis of the other inputs."""
    for index, value in enumerate(node.inputs):
        for k, axis in enumerate(walk.axes(value) if value is not None else ()):
            if index > 0 or k != 1:
                walk.pin(axis, f"is sampled at computed places by {node.op_type}")


class Sample(Rule):
    """Regions of X ``(batch, channels, ...)``, or X at the places of a grid."""

    ops = ("GridSample", "MaxRoiPool", "RoiAlign")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        _sampled(node, walk)
        output = node.outputs[0]
        first, _, *rest = walk.dims(output)
        channels = walk.axes(node.inputs[0])[1]
        walk.set(output, [pinned(first), channels, *map(pinned, rest)])


class AffineGrid(Rule):
    """A grid of places for each affine map of a batch."""

    ops = ("AffineGrid",)
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        walk.pin_node(node, "names places of a grid")


class Col2Im(Rule):
    """Columns ``(batch, channels * block, blocks)`` added up to images, channels on axis 1."""

    ops = ("Col2Im",)
    lengths = (1, 2)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        batch, columns, blocks = walk.axes(data)
        width, (_, channels, *image) = walk.dims(data)[1], walk.dims(output)
        if not isinstance(width, int) or not isinstance(channels, int):
            walk.pin_node(node, "the number of channels is dynamic")
            return
        split = [channels, width // channels]
        outer, block = reshape_axes(walk, [columns], [width], split, "block")
        walk.pin(block, "is part of a block")
        walk.pin(blocks, "is a place in an image")
        walk.set(output, [batch, outer, *map(pinned, image)])


RULES = (Sample(), AffineGrid(), Col2Im())

"""Pooling: every channel by itself, windows over the spatial axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


class Pool(Rule):
    """Average, maximum and Lp pooling, windowed or global, over axes 2 and up."""

    ops = (
        *("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"),
        *("LpPool", "MaxPool"),
    )

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        if len(node.outputs) > 1:
            walk.pin_node(node, "the positions that MaxPool returns count every channel")
            return
        x = walk.axes(node.inputs[0])
        for axis in x[2:]:
            walk.pin(axis, "is a spatial axis of a pooling window")
        output = node.outputs[0]
        spatial = walk.dims(output)[2:]
        zeros = [np.zeros(d, np.int64) if isinstance(d, int) else None for d in spatial]
        walk.set(output, [*x[:2], *zeros])


RULES = (Pool(),)

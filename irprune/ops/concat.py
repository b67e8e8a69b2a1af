"""Concat: label arrays are concatenated along the axis, unified along the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


class Concat(Rule):
    """The inputs one after another along ``axis``."""

    ops = ("Concat",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        operands = [walk.axes(value) for value in node.inputs]
        rank = len(operands[0])
        joined = node.attributes.get_int("axis", 1) % rank
        output: list[Axis] = []
        for k in range(rank):
            axes = [operand[k] for operand in operands]
            if k == joined:
                output.append(self._join(walk, axes))
                continue
            for axis in axes[1:]:
                walk.unify(axes[0], axis)
            output.append(axes[0])
        walk.set(node.outputs[0], output)

    @staticmethod
    def _join(walk: Walk, axes: list[Axis]) -> Axis:
        known = [axis for axis in axes if axis is not None]
        if len(known) == len(axes):
            return np.concatenate(known)
        for axis in known:
            walk.pin(axis, "is concatenated with a dynamic axis")
        return None


RULES = (Concat(),)

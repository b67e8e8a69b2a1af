"""Concat: label arrays are concatenated along the axis, unified along the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Labelled, Rows
from irprune.ops.elementwise import widest
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


def _without(walk: Walk, axis: Labelled, joined: int) -> Labelled:
    """Tie rows per the joined axis: the operands' rows stand one after another there."""
    return walk.tied(axis) if isinstance(axis, Rows) and joined in axis.per else axis


class Concat(Rule):
    """The inputs one after another along ``axis``."""

    ops = ("Concat",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        operands = [walk.rows(value) for value in node.inputs]
        rank = len(operands[0])
        joined = node.attributes.get_int("axis", 1) % rank
        operands = [[_without(walk, axis, joined) for axis in axes] for axes in operands]
        output: list[Labelled] = []
        for k in range(rank):
            axes = [operand[k] for operand in operands]
            if k == joined:
                output.append(self._join(walk, axes))
                continue
            for axis in axes[1:]:
                walk.unify(axes[0], axis)
            output.append(widest(axes))
        walk.set(node.outputs[0], output)

    @staticmethod
    def _join(walk: Walk, axes: list[Labelled]) -> Labelled:
        rows = [axis for axis in axes if isinstance(axis, Rows)]
        if len(rows) == len(axes) and len({axis.per for axis in rows}) == 1:
            return Rows(rows[0].per, np.concatenate([axis.labels for axis in rows], axis=-1))
        known = [axis for axis in map(walk.tied, axes) if axis is not None]
        if len(known) == len(axes):
            return np.concatenate(known)
        for axis in known:
            walk.pin(axis, "is concatenated with a dynamic axis")
        return None


RULES = (Concat(),)

"""Reductions: a sum is a contraction; other statistics over channels are inexact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Labelled, moved
from irprune.ops.rule import Contraction, Rule, Statistic

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


def reduced_axes(node: ir.Node) -> list[int] | None:
    """Return the reduced axes, non-negative; None where they are computed at run time."""
    data = node.inputs[0]
    assert data is not None and data.shape is not None
    rank = len(data.shape)
    axes: Sequence[int] = node.attributes.get_ints("axes") or ()
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        value = node.inputs[1]
        if value.const_value is None or not value.is_initializer():
            return None
        axes = [int(n) for n in value.const_value.numpy().ravel()]
    if not axes:
        return [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    return [a % rank for a in axes]


def _remaining(
    node: ir.Node, axes: Sequence[Labelled], reduced: Sequence[int]
) -> Sequence[Labelled]:
    """Return the output's axes: reduced ones vanish, or stay with one pinned position."""
    one = np.zeros(1, np.int64)
    if node.attributes.get_int("keepdims", 1):
        return [one if k in reduced else axis for k, axis in enumerate(axes)]
    stay = [k for k in range(len(axes)) if k not in reduced]
    return [moved(axes[k], stay.index) for k in stay]


class ReduceSum(Rule):
    """The sum over some axes."""

    ops = ("ReduceSum",)
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        reduced = reduced_axes(node)
        if reduced is None:
            walk.pin_node(node, "the reduced axes are computed at run time")
            return
        axes = walk.apart(walk.rows(node.inputs[0]), reduced)
        walk.set(node.outputs[0], _remaining(node, axes, reduced))

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        return tuple(Contraction(0, axis) for axis in reduced_axes(node) or ())


class Reduction(Rule):
    """Means, norms, extrema and products: inexact over the reduced axes."""

    ops = (
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
        *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
    )
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        reduced = reduced_axes(node)
        if reduced is None:
            walk.pin_node(node, "the reduced axes are computed at run time")
            return
        axes = walk.apart(walk.rows(node.inputs[0]), reduced)
        for k in reduced:
            walk.inexact(node, axes[k], f"takes part in the statistic {node.op_type}")
        walk.set(node.outputs[0], _remaining(node, axes, reduced))

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return tuple(Statistic(0, axis) for axis in reduced_axes(node) or ())


class ArgExtremum(Rule):
    """The position of the extreme along one axis: it counts every position."""

    ops = ("ArgMax", "ArgMin")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        axis = node.attributes.get_int("axis", 0) % len(axes)
        walk.pin(axes[axis], f"is indexed by {node.op_type}")
        walk.set(node.outputs[0], _remaining(node, axes, [axis]))


RULES = (ReduceSum(), Reduction(), ArgExtremum())

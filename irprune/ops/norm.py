"""Normalisations: statistics per channel leave channels free, those over channels are inexact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.rule import Rule, Statistic

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
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
    """Statistics over the spatial axes of each channel, then scale and B per channel (axis 1).

    Where a reshape has put channels there, as in a GroupNormalization of several nodes, the
    spatial axes are channels.
    """

    ops = ("InstanceNormalization",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x = walk.apart(walk.rows(node.inputs[0]), range(2, _rank(node)))
        for parameter in node.inputs[1:]:
            walk.unify(x[1], walk.axes(parameter)[0])
        for axis in x[2:]:
            walk.inexact(node, axis, "takes part in InstanceNormalization statistics")
        walk.set(node.outputs[0], x)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return _over(range(2, _rank(node)))


class GroupNormalization(Rule):
    """Statistics over each group of channels (axis 1) and all spatial axes.

    scale and B hold one number per channel, before opset 21 one per group.
    """

    ops = ("GroupNormalization",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x, groups = walk.axes(node.inputs[0]), node.attributes.get_int("num_groups", 1)
        if x[1] is None or len(x[1]) % groups:
            walk.pin_node(node, "the number of channels is dynamic")
            return
        for parameter in node.inputs[1:]:
            (labels,) = walk.axes(parameter)
            if labels is not None and len(labels) == len(x[1]):
                walk.unify(x[1], labels)
            else:
                walk.pin(labels, "is a parameter of a group of channels")
        if not _apart(node):
            walk.balance(x[1].reshape(groups, -1))
            walk.inexact(node, x[1], "is normalised by GroupNormalization")
        for axis in x[2:]:
            walk.pin(axis, "takes part in GroupNormalization statistics")
        walk.set(node.outputs[0], x)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        if _apart(node):
            return ()
        data, scale = node.inputs[0], node.inputs[1]
        assert data is not None and data.shape is not None
        assert scale is not None and scale.shape is not None
        along = ((1, 0), (2, 0)) if scale.shape[0] == data.shape[1] else ()
        groups = node.attributes.get_int("num_groups", 1)
        return (Statistic(0, 1, along, ((0, 1),), blocks=groups),)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data = node.inputs[0]
        if _apart(node) and data is not None:
            edit.set_attribute(node, "num_groups", edit.length(data, 1))


def _apart(node: ir.Node) -> bool:
    """Each channel is a group of its own, so that channels do not meet."""
    data = node.inputs[0]
    assert data is not None and data.shape is not None
    return data.shape[1] == node.attributes.get_int("num_groups", 1)


class LayerNormalization(Rule):
    """Statistics over the axes from ``axis`` on; scale and B are aligned with the last axes.

    RMSNormalization is the same without means and B.
    """

    ops = ("LayerNormalization", "RMSNormalization")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x = walk.axes(node.inputs[0])
        first = _axis(node, -1)
        for value in filter(None, node.inputs[1:]):
            parameter = walk.axes(value)
            for k, labels in enumerate(parameter, len(x) - len(parameter)):
                if labels is not None and len(labels) == 1:
                    walk.pin(labels, f"is broadcast by {node.op_type}")
                else:
                    walk.unify(x[k], labels)
        for labels in x[first:]:
            walk.inexact(node, labels, f"is normalised by {node.op_type}")
        one: list[Axis] = [np.zeros(1, np.int64) for _ in x[first:]]
        walk.set(node.outputs[0], x)
        for output in node.outputs[1:]:
            walk.set(output, [*x[:first], *one])

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        rank = _rank(node)
        found = []
        for axis in range(_axis(node, -1), rank):
            along = []
            for index, value in enumerate(node.inputs[1:], 1):
                shape = () if value is None or value.shape is None else value.shape
                k = axis - rank + len(shape)
                if k >= 0 and shape[k] != 1:
                    along.append((index, k))
            found.append(Statistic(0, axis, tuple(along), ((0, axis),)))
        return tuple(found)


class LpNormalization(Rule):
    """X divided by its L1 or L2 norm along one axis."""

    ops = ("LpNormalization",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axis = _axis(node, -1)
        x = walk.apart(walk.rows(node.inputs[0]), [axis])
        walk.inexact(node, x[axis], "is normalised by LpNormalization")
        walk.set(node.outputs[0], x)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return _over([_axis(node, -1)])


class MeanVarianceNormalization(Rule):
    """(X - mean) / deviation over several axes."""

    ops = ("MeanVarianceNormalization",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x = walk.axes(node.inputs[0])
        for axis in self._axes(node):
            walk.inexact(node, x[axis], "is normalised by MeanVarianceNormalization")
        walk.set(node.outputs[0], x)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return _over(self._axes(node))

    @staticmethod
    def _axes(node: ir.Node) -> list[int]:
        return [a % _rank(node) for a in node.attributes.get_ints("axes") or (0, 2, 3)]


def _over(axes: Sequence[int]) -> tuple[Statistic, ...]:
    """Return the statistics of an op whose output has the shape of its data."""
    return tuple(Statistic(0, axis, results=((0, axis),)) for axis in axes)


def _rank(node: ir.Node) -> int:
    data = node.inputs[0]
    assert data is not None and data.shape is not None
    return len(data.shape)


def _axis(node: ir.Node, default: int) -> int:
    return node.attributes.get_int("axis", default) % _rank(node)


RULES = (
    BatchNormalization(),
    InstanceNormalization(),
    GroupNormalization(),
    LayerNormalization(),
    LpNormalization(),
    MeanVarianceNormalization(),
)

"""Ops that work along some axes, which stay, and treat every position of the others alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.queries import Dim
    from irprune.walk import Walk


def pinned(dim: Dim) -> Axis:
    """Return the labels of an output axis whose positions all stay; None where it is dynamic."""
    return np.zeros(dim, np.int64) if isinstance(dim, int) else None


class Along(Rule):
    """The axes that `worked` names stay in every input and output; the others pass."""

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int] | None:
        """Return the axes, negative ones allowed; None where they are computed at run time."""
        raise NotImplementedError

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = list(walk.axes(node.inputs[0]))
        worked = self.worked(node, walk, len(axes))
        if worked is None:
            walk.pin_node(node, "its axes are computed at run time")
            return
        for k in worked:
            walk.pin(axes[k], f"is worked along by {node.op_type}")
        for output in node.outputs:
            dims, result = walk.dims(output), list(axes)
            for k in worked:
                result[k] = pinned(dims[k])
            walk.set(output, result)


class Cumulative(Along):
    """Running sums and products along one axis."""

    ops = ("CumProd", "CumSum")
    lengths = (1,)

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int] | None:
        axis = walk.constant(node.inputs[1])
        return None if axis is None else [int(axis.ravel()[0])]


class TopK(Along):
    """The largest positions along one axis: values and indices."""

    ops = ("TopK",)
    lengths = (1,)

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int]:
        return [node.attributes.get_int("axis", -1)]


class Trilu(Along):
    """One triangle of the last two axes."""

    ops = ("Trilu",)
    lengths = (1,)

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int]:
        return [-2, -1]


class ReverseSequence(Along):
    """The head of each sequence of a batch, reversed."""

    ops = ("ReverseSequence",)
    lengths = (1,)

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int]:
        attributes = node.attributes
        return [attributes.get_int("time_axis", 0), attributes.get_int("batch_axis", 1)]


class CenterCropPad(Along):
    """Some axes cropped or padded to given lengths."""

    ops = ("CenterCropPad",)
    lengths = (1,)

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int]:
        return list(node.attributes.get_ints("axes") or range(rank))


class Compress(Along):
    """The positions of one axis, or of all together, that a condition selects."""

    ops = ("Compress",)
    lengths = (1,)

    def worked(self, node: ir.Node, walk: Walk, rank: int) -> list[int]:
        return [node.attributes.get_int("axis", 0)]

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        if "axis" in node.attributes:
            super().propagate(node, walk)
        else:
            walk.pin_node(node, "is flattened by Compress")


class Det(Rule):
    """The determinants of matrices in the last two axes."""

    ops = ("Det",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        *batch, rows, columns = walk.axes(node.inputs[0])
        for axis in (rows, columns):
            walk.pin(axis, "is part of a determinant")
        walk.set(node.outputs[0], batch)


class OneHot(Rule):
    """A new axis of ``depth`` positions, on in the place that an index names."""

    ops = ("OneHot",)
    lengths = (1, 2)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes, output = list(walk.axes(node.inputs[0])), node.outputs[0]
        dims = walk.dims(output)
        axis = node.attributes.get_int("axis", -1) % len(dims)
        walk.set(output, [*axes[:axis], pinned(dims[axis]), *axes[axis:]])


class Counted(Rule):
    """Every position counts: what the op finds, makes or names depends on all of them."""

    ops = ("EyeLike", "NonMaxSuppression", "NonZero", "Range", "Unique")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        walk.pin_node(node, f"every position counts for {node.op_type}")


RULES = (
    *(Cumulative(), TopK(), Trilu(), ReverseSequence(), CenterCropPad(), Compress()),
    *(Det(), OneHot(), Counted()),
)

"""Element-wise ops with numpy broadcasting: unary, binary and n-ary ones alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irprune.labels import Labelled, Rows, shifted
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


def broadcast(walk: Walk, operands: Sequence[Sequence[Labelled]]) -> list[Labelled]:
    """Unify operands aligned at their last axes; return the labels of the result.

    A single position that is stretched along a longer axis serves all of its positions, so it
    stays.
    """
    rank = max(len(axes) for axes in operands)
    raised = [shifted(axes, rank - len(axes)) for axes in operands]
    result: list[Labelled] = []
    for k in range(-rank, 0):
        aligned = [axes[k] for axes in raised if len(axes) >= -k]
        longer = [axis for axis in aligned if axis is None or len(axis) != 1]
        for axis in aligned:
            if longer and axis is not None and len(axis) == 1:
                walk.pin(axis, "is broadcast along a longer axis")
        peers = longer or aligned
        for axis in peers[1:]:
            walk.unify(peers[0], axis)
        result.append(None if any(axis is None for axis in peers) else widest(peers))
    return result


def widest(peers: Sequence[Labelled]) -> Labelled:
    """Return the labels with rows, if any: all of them are tied by now."""
    return next((axis for axis in peers if isinstance(axis, Rows)), peers[0])


class Elementwise(Rule):
    """The output at a position depends on the inputs at that position alone."""

    ops = (
        # unary
        *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil"),
        *("Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"),
        *("HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not"),
        *("Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
        *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
        # several operands, broadcast against each other
        *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip"),
        *("Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min"),
        *("Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
    )

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        if "axis" in node.attributes:
            walk.pin_node(node, "the one-sided broadcast of opset 6 is not analysed")
            return
        operands = [walk.rows(value) for value in node.inputs if value is not None]
        walk.set(node.outputs[0], broadcast(walk, operands))


class PassThrough(Rule):
    """Every output has the shape of input 0: Dropout's mask too; CastLike reads only a type."""

    ops = ("CastLike", "Dropout")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        for output in node.outputs:
            walk.set(output, walk.rows(node.inputs[0]))


RULES = (Elementwise(), PassThrough())

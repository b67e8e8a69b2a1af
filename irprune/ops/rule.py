"""What every op rule provides, and what it may use: one rule object per op family member.

A rule stands in one file with four adjacent parts (`propagate`, `contractions`, `rewrite`,
`macs`); it holds no state. Weights are sliced generically by their labels, never by rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

Size = Callable[["ir.Value", int], int]
"""Kept length of one axis of a value; dynamic axes count as chosen by the caller."""


@dataclass(frozen=True)
class Contraction:
    """An op sums axis ``axis`` of its input number ``data`` away.

    ``weight``/``weight_axis`` name the parameter axis it is multiplied along, if there is one.
    """

    data: int
    axis: int
    weight: int | None = None
    weight_axis: int = 0


class Rule:
    """How one family of ops treats the channels of its inputs and outputs."""

    ops: ClassVar[tuple[str, ...]]
    """The ONNX op types (default domain) that this rule covers."""

    lengths: ClassVar[tuple[int, ...]] = ()
    """Input numbers that hold lengths, axes or positions: their own axes are pinned."""

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        """Unify and pin input labels and set the labels of every output."""
        raise NotImplementedError

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        """Return the (input number, axis) pairs along which a parameter creates channels."""
        return ()

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        """Return the input axes that the op sums away."""
        return ()

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        """Repair attributes and shape inputs for the kept positions."""

    def macs(self, node: ir.Node, size: Size) -> int:
        """Return the multiply-accumulates of one inference as a function of kept lengths."""
        return 0


class Pin(Rule):
    """Fail closed: every axis that the op touches stays."""

    ops = ()

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        walk.pin_node(node, self.reason)

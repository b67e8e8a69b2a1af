"""What every op rule provides, and what it may use: one rule object per op family member.

A rule stands in one file with five adjacent parts (`propagate`, `contractions`, `statistics`,
`rewrite`, `macs`); it holds no state. Weights are sliced generically by their labels, never by
rules.
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


@dataclass(frozen=True)
class Statistic:
    """An op takes statistics over axis ``axis`` of its input number ``data``: it is inexact there.

    ``along`` holds the (input number, axis) of parameters that run along with the axis, ``results``
    the (output number, axis) of outputs that keep it. Where there is one statistic per block of
    consecutive positions, all ``blocks`` must keep equally many.
    """

    data: int
    axis: int
    along: tuple[tuple[int, int], ...] = ()
    results: tuple[tuple[int, int], ...] = ()
    blocks: int = 1


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

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        """Return the axes over which the op is inexact; `propagate` hands each to `Walk.inexact`.

        Where such an axis loses positions, the proof applies the op to the kept ones alone.
        """
        return ()

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        """Repair attributes and shape inputs for the kept positions."""

    def macs(self, node: ir.Node, size: Size) -> int:
        """Return the multiply-accumulates of one inference as a function of kept lengths.

        Lengths may be arrays of many at once, so this takes sums and products only.
        """
        return 0


def opset_of(node: ir.Node) -> int:
    """Return the version of the default domain that the node's graph imports."""
    graph = node.graph
    assert graph is not None, "rules see nodes of a graph"
    return graph.opset_imports.get("", 0)


class Pin(Rule):
    """Fail closed: every axis that the op touches stays."""

    ops = ()

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        walk.pin_node(node, self.reason)

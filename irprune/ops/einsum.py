"""Einsum: letters name axes; shared letters are one axis, letters without output are summed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Labelled
from irprune.ops.elementwise import broadcast
from irprune.ops.rule import Contraction, Rule, Size

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk

Name = str | int
"""A letter of the equation, or a negative number: an axis under the ellipsis, from its end."""


@dataclass(frozen=True)
class Equation:
    """The axis names of each operand and of the output."""

    operands: tuple[tuple[Name, ...], ...]
    output: tuple[Name, ...]

    def places(self, name: Name) -> list[tuple[int, int]]:
        """Return the (operand, axis) pairs that carry a name."""
        return [(i, names.index(name)) for i, names in enumerate(self.operands) if name in names]


def equation_of(node: ir.Node) -> Equation | None:
    """Return the equation of an Einsum node; None where it is not plain (see `Einsum`)."""
    text = node.attributes.get_string("equation", "") or ""
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    ranks = [len(v.shape) if v is not None and v.shape is not None else 0 for v in node.inputs]
    if len(terms) != len(ranks):
        return None
    operands = [_names(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    hidden = sorted({n for names in operands for n in names if isinstance(n, int)})
    if not arrow:
        counts = Counter(left)
        right = "..." + "".join(sorted(c for c in counts if c.isalpha() and counts[c] == 1))
    before, dots, after = right.partition("...")
    output: list[Name] = [*before, *(hidden if dots else ()), *after]
    plain = all(len(set(names)) == len(names) for names in (*operands, output))
    return Equation(tuple(operands), tuple(output)) if plain and (dots or not hidden) else None


def _names(term: str, rank: int) -> tuple[Name, ...]:
    before, dots, after = term.partition("...")
    covered = rank - len(before) - len(after) if dots else 0
    return (*before, *range(-covered, 0), *after)


class Einsum(Rule):
    """The sum over letters that the output lacks of products of operands, broadcast by letter.

    A letter repeated within one operand takes a diagonal, and an ellipsis that the output lacks
    is summed: such nodes are not plain, and stay whole.
    """

    ops = ("Einsum",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        equation = equation_of(node)
        if equation is None:
            walk.pin_node(node, "its equation repeats a letter or drops an ellipsis")
            return
        operands = [walk.axes(value) for value in node.inputs]
        merged: dict[Name, Labelled] = {}
        for name in {n for names in equation.operands for n in names}:
            axes = [operands[i][k] for i, k in equation.places(name)]
            merged[name] = broadcast(walk, [[axis] for axis in axes])[0]
        walk.set(node.outputs[0], [merged[name] for name in equation.output])

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        """A letter of one weight alone that the output keeps creates channels."""
        equation = equation_of(node)
        if equation is None or len(node.inputs) < 2:
            return ()
        alone = (equation.places(n) for n in equation.output if len(equation.places(n)) == 1)
        return [(i, k) for ((i, k),) in alone if _is_weight(node, i)]

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        equation = equation_of(node)
        if equation is None:
            return ()
        names = dict.fromkeys(n for names in equation.operands for n in names)
        found: list[Contraction] = []
        for name in names:
            if name not in equation.output:
                found += self._summed(node, equation.places(name))
        return found

    @staticmethod
    def _summed(node: ir.Node, places: list[tuple[int, int]]) -> list[Contraction]:
        """Return the contractions of one letter; two operands belong together, more do not."""
        long = [(i, k) for i, k in places if _length(node, i, k) != 1]
        if len(long) != 2:
            return [Contraction(i, k) for i, k in long or places]
        (data, axis), (weight, weight_axis) = sorted(long, key=lambda p: _is_weight(node, p[0]))
        return [Contraction(data, axis, weight, weight_axis)]

    def macs(self, node: ir.Node, size: Size) -> int:
        equation = equation_of(node)
        if equation is None or len(node.inputs) < 2:
            return 0
        lengths: dict[Name, int] = {}
        for value, names in zip(node.inputs, equation.operands, strict=True):
            assert value is not None
            for k, name in enumerate(names):
                lengths[name] = np.maximum(lengths.get(name, 1), size(value, k))
        return prod(lengths.values())


def _is_weight(node: ir.Node, index: int) -> bool:
    value = node.inputs[index]
    return value is not None and value.is_initializer()


def _length(node: ir.Node, index: int, axis: int) -> int | ir.SymbolicDim:
    value = node.inputs[index]
    assert value is not None and value.shape is not None
    return value.shape[axis]


RULES = (Einsum(),)

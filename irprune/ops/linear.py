"""Gemm and MatMul, with the weight on either side or with activations on both."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from irprune.labels import Labelled, Rows, shifted
from irprune.ops.elementwise import broadcast
from irprune.ops.rule import Contraction, Rule, Size

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.walk import Walk


def _data_first(node: ir.Node) -> bool:
    """Return whether input 0 is the data (input 1 the weight, or both are activations)."""
    left = node.inputs[0]
    return left is not None and not left.is_initializer()


class Gemm(Rule):
    """Y = alpha A' B' + beta C, each of A and B transposed on request."""

    ops = ("Gemm",)

    @staticmethod
    def _axes(node: ir.Node) -> tuple[int, int, int, int]:
        """Return (row axis of A, inner axis of A, inner axis of B, column axis of B)."""
        trans_a = node.attributes.get_int("transA", 0)
        trans_b = node.attributes.get_int("transB", 0)
        rows, inner_a = (1, 0) if trans_a else (0, 1)
        inner_b, columns = (1, 0) if trans_b else (0, 1)
        return rows, inner_a, inner_b, columns

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        rows, inner_a, inner_b, columns = self._axes(node)
        a, b = walk.axes(node.inputs[0]), walk.axes(node.inputs[1])
        walk.unify(a[inner_a], b[inner_b])
        output: list[Labelled] = [a[rows], b[columns]]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            output = broadcast(walk, [output, walk.axes(node.inputs[2])])
        walk.set(node.outputs[0], output)

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        rows, _, _, columns = self._axes(node)
        return ((1, columns),) if _data_first(node) else ((0, rows),)

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        _, inner_a, inner_b, _ = self._axes(node)
        if _data_first(node):
            return (Contraction(0, inner_a, 1, inner_b),)
        return (Contraction(1, inner_b, 0, inner_a),)

    def macs(self, node: ir.Node, size: Size) -> int:
        a, output = node.inputs[0], node.outputs[0]
        assert a is not None
        return size(a, self._axes(node)[1]) * size(output, 0) * size(output, 1)


def _by_batch(walk: Walk, axes: Sequence[Labelled]) -> list[Labelled]:
    """Tie rows per an axis of the matrices themselves: batch axes alone come through a product."""
    batch = len(axes) - 2
    rows = (isinstance(axis, Rows) and max(axis.per) >= batch for axis in axes)
    return [walk.tied(a) if tie else a for a, tie in zip(axes, rows, strict=True)]


class MatMul(Rule):
    """numpy.matmul: the last axis of A against the last but one of B, batch axes broadcast."""

    ops = ("MatMul",)

    @staticmethod
    def _ranks(node: ir.Node) -> tuple[int, int]:
        a, b = node.inputs[0], node.inputs[1]
        assert a is not None and a.shape is not None
        assert b is not None and b.shape is not None
        return len(a.shape), len(b.shape)

    @staticmethod
    def _inner(ranks: tuple[int, int]) -> tuple[int, int]:
        """Return the contracted axis of A and of B."""
        return ranks[0] - 1, max(ranks[1] - 2, 0)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        a, b = (_by_batch(walk, walk.rows(value)) for value in node.inputs[:2])
        inner_a, inner_b = self._inner((len(a), len(b)))
        rank = max(len(a), len(b))
        left, right = (shifted(axes, rank - len(axes)) for axes in (a, b))
        walk.unify(left[inner_a], right[inner_b])
        output: list[Labelled] = []
        if rank > 2:
            output += broadcast(walk, [a[:-2], b[:-2]])
        if len(a) > 1:
            output.append(left[-2])
        if len(b) > 1:
            output.append(right[-1])
        walk.set(node.outputs[0], output)

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        rank_a, rank_b = self._ranks(node)
        if not _data_first(node):
            return ((0, rank_a - 2),) if rank_a > 1 else ()
        return ((1, rank_b - 1),) if rank_b > 1 else ()

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        inner_a, inner_b = self._inner(self._ranks(node))
        if _data_first(node):
            return (Contraction(0, inner_a, 1, inner_b),)
        return (Contraction(1, inner_b, 0, inner_a),)

    def macs(self, node: ir.Node, size: Size) -> int:
        a, output = node.inputs[0], node.outputs[0]
        assert a is not None and output.shape is not None
        return size(a, self._inner(self._ranks(node))[0]) * prod(
            size(output, k) for k in range(len(output.shape))
        )


RULES = (Gemm(), MatMul())

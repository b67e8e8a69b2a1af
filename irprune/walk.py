"""What op rules read and write: labels on every axis of every value.

Rules talk to this class alone. It records each union and each pin with the node that caused
it, so that `explain` can tell why a channel is coupled or stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from irprune.balance import settled
from irprune.errors import IrpruneError
from irprune.labels import PINNED, Axis, Labelled, Labels, Rows, UnionFind, ids_of
from irprune.queries import Dim, constant_of, dims_of

ROWS_SINCE = 11
"""Opset from which on the proof can gather what each row keeps (GatherND)."""
INEXACT = "inexact"
"""In a policy's ``allow``: every inexact op."""
Heads = Literal["inner", "whole"]


@dataclass(frozen=True)
class Link:
    """A union: position i of ``left`` was tied to position i of ``right`` by ``node``."""

    node: str
    left: Labels
    right: Labels


@dataclass(frozen=True)
class PinRecord:
    """A pin: the ids in ``ids`` must stay, because of ``reason`` at ``node``."""

    node: str
    reason: str
    ids: Labels


@dataclass(frozen=True)
class Balance:
    """Rows that must keep equally many positions, because of ``node``."""

    node: str
    rows: Labels
    """Shape ``(rows, positions)``."""


@dataclass
class Choice:
    """A movement op that had to let one of several axes carry the channels."""

    chosen: int
    candidates: dict[int, list[Labels]] = field(default_factory=dict)


class Walk:
    """Labels of every value of a graph, filled by the op rules.

    Args:
        graph: the graph to walk; it is only read.
        heads: which axis of a split channel axis carries the channels where both could:
            ``inner`` the last, ``whole`` the first.
        choices: decisions of movement ops taken by an earlier walk.
        probing: leave the alternatives of every decision unpinned, to learn which survive.
        allow: names of the inexact ops whose statistics may lose positions (`irprune.inexact`).
        tie: where only the counts of rows must be equal (groups of a convolution, heads), tie
            the same index of every row.
    """

    def __init__(
        self,
        graph: ir.Graph,
        heads: Heads = "inner",
        choices: Mapping[str, int] | None = None,
        probing: bool = True,
        allow: Collection[str] = (),
        tie: bool = False,
    ) -> None:
        self.graph = graph
        self.allow = allow
        self.opset = graph.opset_imports.get("", 0)
        self.heads = heads
        self.choices = dict(choices or {})
        self.probing = probing
        self.tie = tie
        self.norms: Mapping[ir.Node, str] = {}
        """The name of the norm that a node takes statistics for, where it is written out."""
        self.taken: dict[str, Choice] = {}
        self.labels: dict[ir.Value, list[Labelled]] = {}
        self.balances: list[Balance] = []
        self.cells: list[Labels] = []
        self.links: list[Link] = []
        self.pins: list[PinRecord] = []
        self.where = ""
        """What the links and pins to come are due to."""
        inputs = [v for v in graph.inputs if not v.is_initializer()]
        sizes = [[d if isinstance(d, int) else 0 for d in dims_of(v) or []] for v in inputs]
        self.union_find = UnionFind(reserved=1 + sum(map(sum, sizes)))
        self._label_inputs(inputs)

    def _label_inputs(self, inputs: Sequence[ir.Value]) -> None:
        """Give each position of each graph input a pinned id of its own (ids 1 and up)."""
        start = 1
        for value in inputs:
            axes: list[Labelled] = []
            for dim in dims_of(value) or []:
                if isinstance(dim, int):
                    axes.append(np.arange(start, start + dim, dtype=np.int64))
                    start += dim
                else:
                    axes.append(None)
            self.labels[value] = axes

    # What rules read

    def dims(self, value: ir.Value | None) -> list[Dim]:
        """Return the dimensions of a value of known rank."""
        assert value is not None, "a rule asked for an input that the node does not have"
        dims = dims_of(value)
        assert dims is not None, "nodes with values of unknown rank never reach a rule"
        return dims

    def axes(self, value: ir.Value | None) -> list[Axis]:
        """Return the labels of a value, one entry per axis, rows tied to one another.

        Initializers get fresh labels.
        """
        return [self.tied(axis) for axis in self.rows(value)]

    def tied(self, axis: Labelled) -> Axis:
        """Return the labels of an axis, after tying the same index of all its rows."""
        if not isinstance(axis, Rows):
            return axis
        self._tie(axis.flat)
        first: Labels = axis.flat[0]
        return first

    def _tie(self, rows: Labels) -> None:
        if len(rows) > 1:
            self.unify(np.tile(rows[0], len(rows) - 1), rows[1:].ravel())

    def rows(self, value: ir.Value | None) -> list[Labelled]:
        """Return the labels of a value, one entry per axis: for rules that know about rows."""
        assert value is not None, "a rule asked for an input that the node does not have"
        found = self.labels.get(value)
        if found is None:
            dims = self.dims(value)
            fresh = value.is_initializer()
            found = [
                None if not isinstance(d, int) else self.fresh(d) if fresh else zeros(d)
                for d in dims
            ]
            self.labels[value] = found
        return found

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """Return the numbers of an initializer, or None for anything else."""
        return constant_of(value)

    def all_pinned(self, axis: Labelled) -> bool:
        """Return whether no position of the axis can be removed."""
        return axis is None or bool(self.union_find.pinned(ids_of(axis)).all())

    def fresh(self, count: int) -> Labels:
        """Return labels of their own for ``count`` positions."""
        return self.union_find.fresh(count)

    # What rules write

    def set(self, value: ir.Value, axes: Sequence[Labelled]) -> None:
        """Set the labels of an output."""
        self.labels[value] = list(axes)

    def unify(self, left: Labelled, right: Labelled) -> None:
        """Tie two axes position by position; an opaque axis pins the other one.

        Rows are tied row by row to rows per the same axes, and all alike to an axis without.
        """
        if left is None or right is None:
            self.pin(left, "meets a dynamic axis")
            self.pin(right, "meets a dynamic axis")
            return
        if left is right:
            return
        if len(left) == len(right) and not _same_rows(left, right):
            left, right = self.tied(left), self.tied(right)
            assert left is not None and right is not None
        left, right = ids_of(left), ids_of(right)
        if left.shape != right.shape:
            raise IrpruneError(
                f"axes of {len(left)} and {len(right)} positions cannot be tied",
                node=self.where,
                mend="the model's shapes disagree; check it with onnx.checker",
            )
        self.links.append(Link(self.where, left, right))
        self.union_find.union(left, right)

    def label(self, value: ir.Value | None, axis: int, labels: Labelled) -> None:
        """Give an axis of an initializer its labels, or tie those that it has to them."""
        assert value is not None, "a rule asked for an input that the node does not have"
        new = value.is_initializer() and value not in self.labels
        axes = self.rows(value)
        old = axes[axis]
        if not new or labels is None or old is None or len(old) != len(labels):
            self.unify(old, labels)
        else:
            axes[axis] = labels

    def balance(self, rows: Labels) -> None:
        """Let the rows, of shape ``(rows, positions)``, keep equally many positions each.

        Which ones is free, unless other constraints on the same channels forbid it.
        """
        if self.tie:
            self._tie(rows)
        elif len(rows) > 1:
            self.balances.append(Balance(self.where, rows))

    def balance_parts(self, axis: Rows, cuts: Sequence[int]) -> None:
        """Balance what lies between cuts of an axis with rows: a cut moves with their counts."""
        for part in np.split(axis.flat, cuts, axis=1):
            if part.shape[1]:
                self.balance(part)

    def pin(self, axis: Labelled, reason: str) -> None:
        """Keep every position of an axis, for ``reason``."""
        ids = ids_of(axis)
        if not ids.any():
            return
        self.pins.append(PinRecord(self.where, reason, ids))
        self.union_find.union(ids, np.zeros(1, dtype=np.int64))

    def apart(self, axes: Sequence[Labelled], reduced: Collection[int]) -> list[Labelled]:
        """Return the axes of a value, those tied whose rows a reduction of some axes would mix."""
        old = self.opset < ROWS_SINCE
        return [
            self.tied(axis)
            if isinstance(axis, Rows) and (old or {*axis.per} & {*reduced})
            else axis
            for axis in axes
        ]

    def inexact(self, node: ir.Node, axis: Labelled, reason: str) -> None:
        """Keep an axis that a node takes statistics over, unless the policy allows the node.

        The rule lists the axis in its `statistics` too.
        """
        norm = self.norms.get(node)
        if any(name in self.allow for name in (INEXACT, node.op_type, norm)):
            return
        self.pin(axis, reason if norm is None else f"{reason} of a {norm}")

    def pin_node(self, node: ir.Node, reason: str) -> None:
        """Keep every axis of every input and output of a node, for ``reason``."""
        for value in node.inputs:
            if value is not None and value.shape is not None:
                for axis in self.rows(value):
                    self.pin(axis, reason)
        for value in node.outputs:
            dims = dims_of(value) or []
            axes: list[Labelled] = [self.fresh(d) if isinstance(d, int) else None for d in dims]
            self.labels[value] = axes
            for axis in axes:
                self.pin(axis, reason)

    def choose(self, key: str, candidates: Sequence[int]) -> int:
        """Decide which of several axes, the most wanted first, carries the channels."""
        full = f"{self.where}:{key}"
        return self.taken.setdefault(full, Choice(self.choices.get(full, candidates[0]))).chosen

    def offer(self, key: str, candidates: Mapping[int, Labels]) -> None:
        """Name the labels by which to see which candidates of a decision survive.

        While probing, those that were not chosen stay unpinned; afterwards the caller pins them.
        """
        entry = self.taken[f"{self.where}:{key}"]
        for index, labels in candidates.items():
            entry.candidates.setdefault(index, []).append(labels)

    def settle(self) -> None:
        """Tie the rows whose equal counts contradict each other, until the others can be kept."""
        while True:
            tangled, self.cells = settled(self.union_find, [b.rows for b in self.balances])
            if not tangled:
                return
            for number in tangled:
                self.where = self.balances[number].node
                self._tie(self.balances[number].rows)


def _same_rows(left: Labels | Rows, right: Labels | Rows) -> bool:
    if isinstance(left, Rows) and isinstance(right, Rows):
        return left.per == right.per and left.labels.shape == right.labels.shape
    return not isinstance(left, Rows) and not isinstance(right, Rows)


def zeros(dim: Dim) -> Axis:
    """Return the labels of an axis that stays whole; None where its length is not known."""
    return np.full(dim, PINNED, dtype=np.int64) if isinstance(dim, int) else None

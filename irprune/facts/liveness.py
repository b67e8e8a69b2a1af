"""Which channel classes the outputs need: what reads each channel, and what can do without it.

Each *read* is one axis of a value that a node sums away. A class is dead when no read needs any
of its positions: the weights that meet the position are zero or lead to dead classes only, or
the position holds zero, or a constant that goes into the reader's bias, or its contribution is
given to another position that stays: an equal one, or, for a constant, another constant, which
carries it through zero padding exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.channels import Channels
from irprune.facts.bias import private, takes_bias
from irprune.facts.domain import Facts, Mask, Numbers, chain, digest, positions
from irprune.facts.flow import Flow
from irprune.facts.linear import Linear
from irprune.labels import Labels
from irprune.ops import rule_for
from irprune.ops.rule import Contraction
from irprune.tidy import only_use

Indices = npt.NDArray[np.int64]

_NOWHERE = -1
_CARRIED = digest("a constant other than zero")
_MOST_CARRIED = 16
"""A constant carries others of at most this many times its size: beyond, rounding would show."""


@dataclass(frozen=True)
class Policy:
    """What may be removed besides channels that nothing reads."""

    constants: bool = True
    duplicates: bool = True


@dataclass(frozen=True)
class Read:
    """One axis of a value that a node sums away; arrays speak of its positions, unless said."""

    node: ir.Node
    value: ir.Value
    axis: int
    classes: Labels
    facts: Facts
    linear: Linear | None
    """None where no constant weight multiplies the value."""
    active: Mask
    """Which rows read which columns, shape ``(groups, rows, columns)``; see `Linear`."""
    rows: Labels
    """Class of each row, shape ``(groups, rows)``."""
    policy: Policy

    def needed(self, live: Mask) -> Mask:
        """Return which positions live rows read; ``live`` has shape ``(classes,)``."""
        rows = live[self.rows]
        if rows.all():
            return self._read
        parts = [part[some].any(axis=0) for part, some in zip(self.active, rows, strict=True)]
        return np.concatenate(parts)

    @cached_property
    def _read(self) -> Mask:
        """Positions that any row reads."""
        return np.asarray(self.active.any(axis=1)).ravel()

    @cached_property
    def zero(self) -> Mask:
        """Positions that hold zero."""
        mask: Mask = self.facts.known & (self.facts.const == 0) & self.policy.constants
        return mask

    @cached_property
    def foldable(self) -> Mask:
        """Positions with a constant that the reader's bias can take."""
        fits = self.linear is not None and self.linear.uniform and takes_bias(self.linear)
        fits = fits and self.editable
        return self.facts.known & ~self.zero & (fits and self.policy.constants)

    @cached_property
    def editable(self) -> bool:
        """The weight can be changed without changing another node."""
        if self.linear is None:
            return False
        factor = self.node.inputs[1 - self.linear.data]
        return private(self.linear.weight) and factor is not None and only_use(factor)

    @cached_property
    def carried(self) -> Mask:
        """Positions with a constant that another constant can carry."""
        return self.facts.known & ~self.zero & self.policy.constants

    @cached_property
    def peers(self) -> Numbers:
        """Positions with equal numbers can take each other's contributions; 0: with none."""
        if not self.editable:
            return np.zeros(len(self.classes), np.uint64)
        groups = np.repeat(positions(len(self.rows), 0), self.active.shape[2])
        numbers = np.where(self.carried, _CARRIED, self.facts.number)
        numbers = chain(digest("peers"), groups, numbers)
        usable = self.carried | self.policy.duplicates
        return np.where(usable & ~self.zero, numbers, np.uint64(0))


def reads_of(channels: Channels, flow: Flow, policy: Policy) -> list[Read]:
    """Return every read of a graph, in topological order."""
    found = []
    for node in channels.graph:
        for contraction in rule_for(node).contractions(node):
            linear = flow.linear(node)
            data, axis = contraction.data, contraction.axis
            if linear is not None:
                data, axis = linear.data, linear.data_axis
            value = node.inputs[data]
            axes = channels.of(value) if value is not None else []
            if value is None or not axes or (classes := axes[axis]) is None:
                continue
            facts = flow.of(value).along(axis, len(classes))
            if linear is None:
                active = _partner(node, contraction, flow, len(classes))
                rows = np.zeros((1, 1), np.int64)
            else:
                active = linear.used
                rows = _row_classes(linear, channels, active.shape)
            found.append(Read(node, value, axis, classes, facts, linear, active, rows, policy))
    return found


def _partner(node: ir.Node, contraction: Contraction, flow: Flow, length: int) -> Mask:
    """Return what counts where an activation or nothing multiplies the value: one row."""
    partner = None if contraction.weight is None else node.inputs[contraction.weight]
    if partner is None or node.op_type not in ("Gemm", "MatMul"):
        return np.ones((1, 1, length), np.bool_)
    facts = flow.of(partner).along(contraction.weight_axis, length)
    counts: Mask = ~(facts.known & (facts.const == 0))
    return counts.reshape(1, 1, length)


def _row_classes(linear: Linear, channels: Channels, shape: tuple[int, ...]) -> Labels:
    axis = linear.output_axis
    classes = None if axis is None else channels.of(linear.node.outputs[0])[axis]
    if classes is None:
        return np.zeros(shape[:2], np.int64)
    return classes.reshape(shape[:2])


class Liveness:
    """The classes of a graph that stay, and where contributions of the others go.

    Every tensor axis keeps a class. Of several equal or carried classes those with the largest
    constants stay, else those that come first.
    """

    def __init__(self, channels: Channels, reads: Sequence[Read]) -> None:
        self.channels = channels
        self.reads = reads
        self.held = np.zeros(channels.count, np.bool_)
        """Classes that stay only because a tensor axis would be empty without them."""
        self.merged = np.zeros(channels.count, np.bool_)
        """Classes whose contributions go to other positions."""
        self.receivers: list[Indices] = [np.full(len(r.classes), _NOWHERE) for r in reads]
        """For each read, the position that takes each position's contribution; -1: none."""
        self.touched = np.zeros(channels.count, np.bool_)
        """Classes that some node reads."""
        for read in reads:
            self.touched[read.classes] = True
        self.live = self._mark()
        """Classes that stay, shape ``(classes,)``."""
        self._hold()
        self._merge()
        if self.merged.any():
            self.live = self._mark()
            self._hold()

    @property
    def dead(self) -> Mask:
        """Classes that can be removed, shape ``(classes,)``."""
        return self.touched & ~self.live

    def wanted(self, read: Read) -> Mask:
        """Return which positions live rows read and that neither vanish nor fold."""
        return read.needed(self.live) & ~read.zero & ~read.foldable

    def _mark(self) -> Mask:
        """Return the classes that pinned, held and unread ones need, directly or not."""
        live = ~self.touched | self.held
        live[0] = True
        sources = [
            read.classes[np.where(to == _NOWHERE, np.arange(len(to)), to)]
            for read, to in zip(self.reads, self.receivers, strict=True)
        ]
        seen: list[Mask | None] = [None] * len(self.reads)
        while True:
            before = int(live.sum())
            for k in reversed(range(len(self.reads))):
                read, rows = self.reads[k], live[self.reads[k].rows]
                if (last := seen[k]) is not None and np.array_equal(last, rows):
                    continue
                seen[k] = rows
                wanted = read.needed(live) & ~read.zero & ~read.foldable
                live[sources[k][wanted]] = True
            if int(live.sum()) == before:
                return live

    def _hold(self) -> None:
        """Keep one class on every tensor axis that would lose all of them."""
        flat, starts, _ = self.channels.unique_axes
        axes = np.split(flat, starts[1:]) if len(starts) else []
        while True:
            empty = [classes for classes in axes if not self.live[classes].any()]
            if not empty:
                return
            for classes in sorted(empty, key=len):
                if not self.live[classes].any():
                    kept = classes[~self.merged[classes]].min()
                    self.held[kept] = self.live[kept] = True
            self.live = self._mark()

    def _merge(self) -> None:
        """Choose, one after another, classes whose every wanted position has a peer that stays.

        Those whose constants no peer can carry without loss of precision stay after all.
        """
        peers = _Peers(self)
        for number in peers.order:
            if peers.spare(number):
                self.merged[number] = True
        while True:
            heavy = [self._assign(*pair) for pair in zip(self.reads, self.receivers, strict=True)]
            stays = np.unique(np.concatenate(heavy)) if heavy else np.zeros(0, np.int64)
            if not len(stays):
                return
            self.merged[stays] = False

    def _assign(self, read: Read, receivers: Indices) -> Labels:
        """Give each position of a merged class the strongest of its peers that stay.

        Returns the classes of positions whose constant is too large for that peer.
        """
        receivers[:] = _NOWHERE
        giving = np.flatnonzero(self.merged[read.classes] & self.wanted(read))
        if not len(giving):
            return read.classes[giving]
        stays = self.live[read.classes] & ~self.merged[read.classes] & (read.peers != 0)
        candidates = np.flatnonzero(stays)
        strength = np.abs(read.facts.const.astype(np.float64)) * read.carried
        order = np.lexsort((candidates, -strength[candidates], read.peers[candidates]))
        candidates = candidates[order]
        numbers, first = np.unique(read.peers[candidates], return_index=True)
        taking = candidates[first[np.searchsorted(numbers, read.peers[giving])]]
        receivers[giving] = taking
        return read.classes[giving[strength[giving] > _MOST_CARRIED * strength[taking]]]


@dataclass
class _Peers:
    """Sets of live classes of which some must stay: the peers at a read, the classes of an axis."""

    liveness: Liveness
    order: Labels = field(init=False)
    """Classes that may be spared, weakest constants first, then the last ones first."""

    def __post_init__(self) -> None:
        keys, classes, wanted, axes = self._members()
        live = self.liveness.live[classes]
        blocked = np.zeros(self.liveness.channels.count, np.bool_)
        blocked[classes[wanted & (keys == 0)]] = True
        member = live & (keys != 0)
        keys, classes, wanted, axes = keys[member], classes[member], wanted[member], axes[member]
        _, sets = np.unique(keys, return_inverse=True)
        pairs, where = np.unique(classes * (len(keys) + 1) + sets, return_inverse=True)
        self._classes, self._sets = np.divmod(pairs, len(keys) + 1)
        self._wanted = np.zeros(len(pairs), np.bool_)
        np.logical_or.at(self._wanted, where, wanted)
        self._left = np.bincount(self._sets, minlength=1)
        self._needed = np.zeros(len(self._left), np.bool_)
        self._needed[sets[axes]] = True
        self.order = self._eligible(blocked)

    def _members(self) -> tuple[Numbers, Labels, Mask, Mask]:
        """Return set numbers (0: none), classes, which are wanted there, which sets are axes."""
        reads = self.liveness.reads
        flat, starts, _ = self.liveness.channels.unique_axes
        axis = np.repeat(np.arange(len(starts), dtype=np.uint64), np.diff([*starts, len(flat)]))
        keys = [chain(digest("axis"), axis)]
        for k, read in enumerate(reads):
            numbers = chain(digest("read", k), read.peers)
            keys.append(np.where(read.peers == 0, np.uint64(0), numbers))
        wanted = [np.zeros(len(flat), np.bool_), *(self.liveness.wanted(read) for read in reads)]
        classes = np.concatenate([flat, *(read.classes for read in reads)])
        is_axis = np.arange(len(classes)) < len(flat)
        return np.concatenate(keys), classes, np.concatenate(wanted), is_axis

    def _eligible(self, blocked: Mask) -> Labels:
        liveness = self.liveness
        stays = blocked | liveness.held | ~liveness.live | ~liveness.touched
        stays[0] = True
        alone = (self._wanted | self._needed[self._sets]) & (self._left[self._sets] < 2)
        stays[self._classes[alone]] = True
        strength = np.zeros(len(stays))
        for read in liveness.reads:
            const = np.abs(read.facts.const.astype(np.float64)) * read.carried
            np.maximum.at(strength, read.classes, const)
        found = np.flatnonzero(~stays)
        return found[np.lexsort((-found, strength[found]))]

    def spare(self, number: int) -> bool:
        """Take a class out of its sets, unless one of those that count would be empty."""
        low, high = np.searchsorted(self._classes, [number, number + 1])
        sets, wanted = self._sets[low:high], self._wanted[low:high]
        counts = wanted | self._needed[sets]
        if (self._left[sets[counts]] < 2).any():
            return False
        self._left[sets] -= 1
        self._needed[sets[wanted]] = True
        return True

"""Which classes to keep: kept counts per group under a target, alignment and floors.

A *strength* between 0 and 1 says how hard to prune; it maps to a kept count per group, rounded
to the widths that the alignment allows. A cost target is met by bisecting the strength and then
moving single groups between the two neighbouring strengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irprune.channels import Channels
from irprune.groups import Group
from irprune.plan import Mask

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
_BISECTIONS = 40
_NEAR = 0.005
"""Costs this near to the target are not refined further."""
_FEW = 40
"""With more single steps than this, pairs of steps are not tried: there is no need, and no time."""


@dataclass(frozen=True)
class Candidate:
    """A group that may lose classes."""

    group: Group
    alive: npt.NDArray[np.int64]
    """Class ids not yet removed, least important first, one of each cell, ``(alive, cells)``."""
    scores: Scores
    """Their scores, comparable across groups, ascending, shape ``(alive,)``."""
    multiplicity: int
    """Positions of one class along the producer axis."""
    allowed: Counts
    """Kept counts that alignment, floor and overrides permit, ascending."""

    @property
    def locked(self) -> bool:
        """Return whether only one count is permitted."""
        return len(self.allowed) == 1

    def nearest(self, count: float) -> int:
        """Return the allowed kept count nearest to ``count``, the larger of two."""
        distance = np.abs(self.allowed - count)
        return int(self.allowed[len(distance) - 1 - np.argmin(distance[::-1])])


def allowed_counts(alive: int, multiplicity: int, align: int, floor: int) -> Counts:
    """Return the kept counts whose axis length is a multiple of ``align``, and ``alive`` itself.

    A floor of 0 permits 0 too.

    Args:
        alive: classes to choose from.
        multiplicity: positions of one class along the axis.
        align: wanted divisor of the axis length, in positions.
        floor: least axis length, in positions.
    """
    unit = align // np.gcd(align, multiplicity)
    counts = np.arange(unit if floor else 0, alive + 1, unit, dtype=np.int64)
    counts = counts[counts * multiplicity >= min(floor, alive * multiplicity)]
    return np.union1d(counts, [alive])


class Selection:
    """Chooses kept counts for the candidates and turns them into kept classes."""

    def __init__(
        self, channels: Channels, candidates: Sequence[Candidate], keep: Mask, fixed: Mask
    ) -> None:
        """``keep``: classes alive before; ``fixed``: classes kept whatever the strength."""
        self.channels = channels
        self.candidates = list(candidates)
        self._keep = keep
        self._fixed = fixed

    # Strength to counts

    def local(self, strength: float) -> Counts:
        """Remove the fraction ``strength`` of every group, rounded down, then aligned."""
        return np.array(
            [
                c.nearest(len(c.alive) - np.floor(strength * len(c.alive) + 1e-9))
                for c in self.candidates
            ],
            dtype=np.int64,
        )

    def spread(self) -> Callable[[float], Counts]:
        """Return the global rule: the least important fraction of all positions goes."""
        scores = np.concatenate([c.scores for c in self.candidates])
        weights = np.concatenate([np.full(len(c.alive), c.multiplicity) for c in self.candidates])
        order = np.argsort(scores, kind="stable")
        ends = np.cumsum(weights[order]) / weights.sum()
        bounds = np.cumsum([0, *(len(c.alive) for c in self.candidates)])

        def counts(strength: float) -> Counts:
            removed = np.zeros(len(scores), np.bool_)
            removed[order[ends <= strength + 1e-9]] = True
            gone = np.add.reduceat(removed.astype(np.int64), bounds[:-1])
            return np.array(
                [c.nearest(len(c.alive) - g) for c, g in zip(self.candidates, gone, strict=True)],
                dtype=np.int64,
            )

        return counts

    # Counts to classes

    def keep(self, counts: Counts) -> Mask:
        """Return the kept classes, shape ``(classes,)``.

        Only axes whose groups may lose all of their classes, and do, are left empty.
        """
        keep = self._keep.copy()
        emptied = ~self._keep
        for candidate, count in zip(self.candidates, counts, strict=True):
            keep[candidate.alive[: len(candidate.alive) - count]] = False
            if count == 0:
                emptied[candidate.alive] = True
        keep |= self._fixed
        self._refill(keep, emptied & ~keep)
        return keep

    def _refill(self, keep: Mask, emptied: Mask) -> None:
        """Give each tensor axis that lost everything its most important class back, with what
        must stay beside it.

        Axes that have classes in ``emptied`` alone stay as they are.
        """
        flat, starts, _ = self.channels.unique_axes
        ends = [*starts[1:], len(flat)]
        rank = np.zeros(len(keep))
        for candidate in self.candidates:
            rank[candidate.alive] = candidate.scores[:, None]
        refused = self.channels.lengths(~emptied) > 0
        while len(empty := np.flatnonzero((self.channels.lengths(keep) == 0) & refused)):
            axis = flat[starts[empty[0]] : ends[empty[0]]]
            alive = axis[self._keep[axis]]
            best = alive[np.argmax(rank[alive])]
            keep[best] = True
            for candidate in self.candidates:
                keep[candidate.alive[(candidate.alive == best).any(axis=1)]] = True

    # A cost target

    def towards(
        self, target: float, cost: Callable[[Mask], int], counts: Callable[[float], Counts]
    ) -> Counts:
        """Return the counts whose cost is nearest to ``target``.

        The caller has checked that the cost at strength 1 does not exceed the target.
        """

        def price(choice: Counts) -> int:
            return cost(self.keep(choice))

        low, high = 0.0, 1.0
        above, below = counts(low), counts(high)
        if price(above) <= target:
            return above
        for _ in range(_BISECTIONS):
            middle = counts((low + high) / 2)
            if np.array_equal(middle, above) or price(middle) > target:
                low, above = (low + high) / 2, middle
            else:
                high, below = (low + high) / 2, middle
            if np.array_equal(above, below):
                break
        return self._refined(self._between(above, below, target, price), target, price)

    def _refined(self, counts: Counts, target: float, price: Callable[[Counts], int]) -> Counts:
        """Move one group, or else two, by one allowed step while that brings the cost nearer.

        Wide alignment makes the steps of the strength coarse; a narrower group elsewhere may
        fill the gap.
        """
        gap = abs(price(counts) - target)
        while gap > _NEAR * target:
            trials = list(self._neighbours(counts))
            nearest = min(trials, key=lambda trial: abs(price(trial) - target), default=counts)
            if abs(price(nearest) - target) >= gap and len(trials) <= _FEW:
                pairs = (second for first in trials for second in self._neighbours(first))
                nearest = min(pairs, key=lambda trial: abs(price(trial) - target), default=counts)
            reached = abs(price(nearest) - target)
            if reached >= gap:
                break
            gap, counts = reached, nearest
        return counts

    def _neighbours(self, counts: Counts) -> Iterator[Counts]:
        """Yield the counts with one group moved to its next allowed count, down or up."""
        for index, candidate in enumerate(self.candidates):
            if candidate.locked:
                continue
            place = int(np.searchsorted(candidate.allowed, counts[index]))
            for step in (place - 1, place + 1):
                if 0 <= step < len(candidate.allowed):
                    trial = counts.copy()
                    trial[index] = candidate.allowed[step]
                    yield trial

    def _between(
        self, above: Counts, below: Counts, target: float, price: Callable[[Counts], int]
    ) -> Counts:
        """Move groups from the larger to the smaller counts, least loss first, to the nearest.

        A group that would overshoot by itself moves through its allowed counts in between.
        """
        best, best_gap = above, abs(price(above) - target)
        current = above.copy()
        differ = [int(k) for k in np.flatnonzero(above != below)]
        for index in sorted(differ, key=lambda k: self._loss(k, int(above[k]), int(below[k]))):
            allowed = self.candidates[index].allowed
            steps = allowed[(allowed >= below[index]) & (allowed < current[index])]
            for step in steps[::-1]:
                trial = current.copy()
                trial[index] = step
                cost = price(trial)
                if abs(cost - target) < best_gap:
                    best, best_gap = trial, abs(cost - target)
                if cost < target:
                    break
                current = trial
        return best

    def _loss(self, index: int, before: int, after: int) -> float:
        """Importance lost per class when a group shrinks."""
        candidate = self.candidates[index]
        total = len(candidate.alive)
        lost = candidate.scores[total - before : total - after]
        return float(np.abs(lost).mean()) if len(lost) else 0.0

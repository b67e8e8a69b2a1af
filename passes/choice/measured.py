"""A latency target met by measurement: choose, compact, measure beside the original, correct.

The device's model predicts; the target holds for what is measured. Each step asks the solver for
the predicted share that the nearest measured candidate suggests, writes that candidate and times
it in turns with the original. The first steps are free in their choice; later ones stay near the
best candidate, where prediction and measurement differ by the same factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from irprune.errors import CheckFailed
from irprune.passbase import Context
from irprune.passes.choice.budgeted import Bounds, Budgeted, Choice
from irprune.passes.choice.stopwatch import Stopwatch, Tried
from irprune.passes.choice.targets import Target

TOLERANCE = 0.015
"""How far the measured ratio may lie from the target."""
_NEAR = 0.005
"""A candidate this near to the target is not improved."""
_FREE = 3
"""Steps that may choose anew; later ones stay near the best candidate."""
_STEPS = 9
_REPEATS = 3
"""Times that the solver may return a known candidate, at ever larger corrections."""

Measure = Callable[[Choice, bool], Tried]
"""Measures a choice, for longer where that is asked for."""


class Tries:
    """The candidates of one alignment: the last measurement of each, against the wanted ratio."""

    def __init__(self, wanted: float, measure: Measure) -> None:
        self._wanted, self._measure = wanted, measure
        self._last: dict[bytes, Tried] = {}

    def __len__(self) -> int:
        return len(self._last)

    def __iter__(self) -> Iterator[Tried]:
        return iter(self._last.values())

    def __contains__(self, choice: Choice) -> bool:
        return choice.keep.tobytes() in self._last

    def __getitem__(self, choice: Choice) -> Tried:
        return self._last[choice.keep.tobytes()]

    def add(self, choice: Choice, *, long: bool = False) -> Tried:
        """Measure a choice; what was measured of it before counts no more."""
        found = self._measure(choice, long)
        self._last[choice.keep.tobytes()] = found
        return found

    def confirmed(self, found: Tried) -> Tried:
        """Return what a long run says of a candidate."""
        return found if found.long else self.add(found.choice, long=True)

    def miss(self, found: Tried) -> float:
        """Return how far a ratio lies above the wanted one; infinite where it failed to run."""
        return found.value - self._wanted

    def good(self, found: Tried) -> bool:
        """Return whether a candidate meets the target and is not slower than the original."""
        return abs(self.miss(found)) <= TOLERANCE and not found.slower

    def doubtful(self, found: Tried) -> bool:
        """Return whether a longer run may find that a candidate meets the target."""
        ratio = found.ratio
        return (
            not found.long
            and ratio is not None
            and ratio.low <= self._wanted + TOLERANCE
            and ratio.high >= self._wanted - TOLERANCE
        )

    def too_slow(self, found: Tried) -> bool:
        """Return whether a candidate is slower than asked beyond doubt, or failed to run."""
        return self.miss(found) > TOLERANCE and not self.doubtful(found)

    def nearest(self) -> Tried | None:
        """Return the candidate nearest to the target, of those that run."""
        return self._nearest(self)

    def nearest_doubtful(self) -> Tried | None:
        """Return the nearest one whose long run may find that it meets the target."""
        return self._nearest(t for t in self if self.doubtful(t))

    def across(self, found: Tried) -> Tried | None:
        """Return the nearest candidate on the other side of the target."""
        return self._nearest(t for t in self if self.miss(t) * self.miss(found) < 0)

    def meeting(self) -> Tried | None:
        """Return the nearest candidate that meets the target in a long run."""
        while best := self._nearest(
            t for t in self if self.doubtful(t) or (t.long and self.good(t))
        ):
            if best.long:
                return best
            self.confirmed(best)
        return None

    def faster(self) -> Tried | None:
        """Return the one that keeps most of those that are faster than asked in a long run."""
        while fast := [t for t in self if self.miss(t) <= 0 and not t.slower]:
            best = max(fast, key=lambda t: t.choice.kept_importance)
            if best.long:
                return best
            self.confirmed(best)
        return None

    def _nearest(self, tried: Iterable[Tried]) -> Tried | None:
        return nearest(tried, self._wanted)


def nearest(tried: Iterable[Tried], wanted: float) -> Tried | None:
    """Return the candidate whose ratio lies nearest to the wanted one, of those that run."""
    measured = [t for t in tried if t.ratio is not None]
    return min(measured, key=lambda t: abs(t.value - wanted), default=None)


class Correction:
    """Meets a latency target, other bounds given, by what a stopwatch says."""

    def __init__(
        self,
        budgeted: Budgeted,
        bounds: Bounds,
        target: Target,
        stopwatch: Stopwatch,
        alignments: Sequence[int | None],
        context: Context,
    ) -> None:
        self._budgeted, self._bounds, self._watch = budgeted, bounds, stopwatch
        self._alignments, self._context = alignments, context
        self._target = target
        self._whole_s = budgeted.whole["latency"]
        if target.fraction is not None:
            self.wanted = target.fraction
        else:
            self.wanted = target.bound(0) / stopwatch.whole().value
        self.tried: list[Tried] = []
        """Every measurement, in order."""
        self._tries: list[Tries] = []

    def run(self) -> tuple[Tried, int | None]:
        """Return a measured candidate within the tolerance, and its alignment.

        Where widths allow none, it is the one that keeps most of those that are faster.

        Raises:
            CheckFailed: none is as fast as asked; the message names what can be reached.
        """
        for align in self._alignments:
            tries = Tries(self.wanted, self._measured)
            self._tries.append(tries)
            found = self._met(align, tries)
            if found is not None:
                return found, align
            best = tries.faster()
            if best is not None:
                self._context.log(
                    f"prune: latency: no widths found come nearer to {self.wanted:.3f} than "
                    f"{best.value:.3f} without being slower"
                )
                return best, align
        raise self._unreachable()

    def _met(self, align: int | None, tries: Tries) -> Tried | None:
        """Return a candidate that meets the target with an alignment, confirmed by a long run."""
        share, repeats = self.wanted, 0
        for step in range(_STEPS):
            start = tries.nearest() if step >= _FREE else None
            bounds = {**self._bounds, "latency": share * self._whole_s}
            made = self._budgeted.choose(bounds, align, None if start is None else start.choice)
            choice = made or self._budgeted.least(bounds, align)
            if choice not in tries:
                repeats = 0
                tries.add(choice)
            elif (doubted := tries.nearest_doubtful()) is not None:
                repeats = 0
                tries.confirmed(doubted)
            else:
                repeats += 1
            if repeats > _REPEATS or (made is None and tries.too_slow(tries[choice])):
                break
            best = tries.nearest()
            if best is None:
                share *= 0.97
                continue
            if abs(tries.miss(best)) <= _NEAR:
                best = tries.confirmed(best)
                if best.ratio is None:
                    continue
                if abs(tries.miss(best)) <= 2 * _NEAR and tries.good(best):
                    return best
            share = _next(tries, best, 1 + 0.5 * repeats)
        return tries.meeting()

    def _measured(self, choice: Choice, long: bool) -> Tried:
        found = self._watch.time(choice, self._whole_s, long=long)
        self.tried.append(found)
        said, ratio = found.error, found.ratio
        if ratio is not None:
            said = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        self._context.log(
            f"prune: latency: step {len(self.tried)}: predicted {found.predicted:.3f}, measured "
            f"{said} of the original{' (long run)' if long else ''}, "
            f"keeps {choice.kept_importance:.3f} of the importance"
        )
        return found

    def _unreachable(self) -> CheckFailed:
        what = f"latency={self._target.text}"
        best = nearest((t for tries in self._tries for t in tries), self.wanted)
        if best is None or best.ratio is None:
            error = self.tried[-1].error if self.tried else "nothing was measured"
            return CheckFailed(f"{what}: no candidate runs: {error}")
        ratio = best.ratio
        reached = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        gain = "; no candidate is faster than the original" if ratio.low > 1 else ""
        return CheckFailed(
            f"{what} cannot be met: the nearest measured is {reached} of the original instead of "
            f"{self.wanted:.3f}{gain}",
            mend=f"ask for latency={ratio.value:.3f}, or relax other bounds, align, min and skip",
        )


def _next(tries: Tries, best: Tried, eagerness: float) -> float:
    """Return the predicted share to ask for, by the best candidate and one past the target."""
    miss = tries.miss(best)
    other = tries.across(best)
    if other is not None and eagerness == 1 and len(tries) <= _FREE:
        return best.predicted + (other.predicted - best.predicted) * miss / (
            miss - tries.miss(other)
        )
    share = best.predicted * (1 - eagerness * miss / best.value)
    return min(share, (best.predicted + 1) / 2)  # a model far too gloomy must not lead to 1

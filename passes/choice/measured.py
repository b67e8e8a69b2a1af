"""A latency target met by measurement: choose, compact, measure beside the original, correct.

The device's model predicts; the target holds for what is measured. Each step asks the solver for
the predicted share that the nearest measured candidate suggests, writes that candidate and times
it in turns with the original. The first steps are free in their choice; later ones stay near the
best candidate, where prediction and measurement differ by the same factor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irprune.errors import CheckFailed, IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.choice.budgeted import Bounds, Budgeted, Choice
from irprune.passes.choice.candidates import Candidates
from irprune.passes.choice.targets import Target
from irprune.protocols import Bencher, BenchSettings, Estimate, HostDevice

TOLERANCE = 0.015
"""How far the measured ratio may lie from the target."""
_NEAR = 0.005
"""A candidate this near to the target is not improved."""
_FREE = 3
"""Steps that may choose anew; later ones stay near the best candidate."""
_STEPS = 9
_REPEATS = 3
"""Times that the solver may return a known candidate, at ever larger corrections."""


@dataclass(frozen=True)
class Tried:
    """A candidate that was measured; `ratio` is None where it failed to run."""

    choice: Choice
    predicted: float
    """Predicted latency as a share of that of the original."""
    ratio: Estimate | None
    latency: Estimate | None
    original: Estimate | None
    """Seconds of the original, measured beside it."""
    error: str | None
    long: bool
    """Whether it was measured for longer; what a candidate reaches is not said before."""

    def near(self, wanted: float) -> bool:
        """Return whether the measured ratio lies within the tolerance."""
        return self.ratio is not None and abs(self.ratio.value - wanted) <= TOLERANCE

    def found(self) -> dict[str, Any]:
        """Return what the report records of the candidate that is taken."""
        return {
            "predicted": self.predicted,
            "measured": triple(self.ratio),
            "latency_s": triple(self.latency),
            "original_s": triple(self.original),
        }

    def to_json(self) -> dict[str, Any]:
        """Return what the report records of a step."""
        return {
            "predicted": self.predicted,
            "measured": triple(self.ratio),
            "latency_s": triple(self.latency),
            "kept_importance": self.choice.kept_importance,
            **({"error": self.error} if self.error else {}),
        }


def triple(found: Estimate | None) -> list[float] | None:
    """Return value and interval, fit for JSON."""
    return None if found is None else [found.value, found.low, found.high]


class Stopwatch:
    """Times candidates in turns with the untouched original."""

    def __init__(
        self, prunable: Candidates, model: Model, bencher: Bencher, device: HostDevice, seed: int
    ) -> None:
        self._prunable, self._bencher = prunable, bencher
        self._settings = BenchSettings(
            precision=0.012,
            limit_s=8,
            processes=3,
            threads=device.threads,
            provider=device.provider,
            seed=seed,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="irprune-latency-")
        self._original = Path(self._folder.name) / "original.onnx"
        model.save(self._original)

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def whole(self) -> Estimate:
        """Return the latency of the original in seconds."""
        row = self._bencher.bench([self._original], self._prunable.feeds, self._settings).rows[0]
        if row.latency is None:
            raise IrpruneError(f"the original cannot be timed: {row.error}")
        return row.latency

    def time(self, choice: Choice, whole_s: float, *, long: bool) -> Tried:
        """Measure a choice; `long` does it more precisely.

        `whole_s` is the predicted latency of the original.
        """
        path = Path(self._folder.name) / "candidate.onnx"
        self._prunable.write(choice.keep, path)
        settings = self._settings
        if long:
            settings = replace(settings, precision=0.006, limit_s=20, processes=6)
        first, row = self._bencher.bench(
            [self._original, path], self._prunable.feeds, settings
        ).rows
        if first.error is not None:
            raise IrpruneError(f"the original cannot be timed: {first.error}")
        predicted = choice.costs["latency"] / whole_s
        return Tried(choice, predicted, row.ratio, row.latency, first.latency, row.error, long)


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
        self.whole_s = budgeted.whole["latency"]
        """The predicted latency of the original."""
        if target.fraction is not None:
            self.wanted = target.fraction
        else:
            self.wanted = target.bound(0) / stopwatch.whole().value
        self.tried: list[Tried] = []
        """Every measurement, in order."""
        self._known: list[list[Tried]] = []
        """The last measurement of each candidate, for each alignment."""

    def run(self) -> tuple[Tried, int | None]:
        """Return a measured candidate within the tolerance, and its alignment.

        Where widths allow none, it is the one that keeps most of those that are faster.

        Raises:
            CheckFailed: none is as fast as asked; the message names what can be reached.
        """
        for align in self._alignments:
            mine: list[Tried] = []
            self._known.append(mine)
            found = self._met(align, mine)
            if found is not None:
                return found, align
            best = self._faster(mine)
            if best is not None:
                assert best.ratio is not None
                self._context.log(
                    f"prune: latency: no widths found come nearer to {self.wanted:.3f} than "
                    f"{best.ratio.value:.3f} without being slower"
                )
                return best, align
        raise self._unreachable()

    def _met(self, align: int | None, mine: list[Tried]) -> Tried | None:
        """Return a candidate that meets the target with an alignment, confirmed by a long run."""
        share, repeats = self.wanted, 0
        for step in range(_STEPS):
            near = self._nearest(mine) if step >= _FREE else None
            bounds = {**self._bounds, "latency": share * self.whole_s}
            made = self._budgeted.choose(bounds, align, None if near is None else near.choice)
            choice = made or self._budgeted.least(bounds, align)
            doubted = self._nearest([t for t in mine if self._doubtful(t)])
            if _last(choice, mine) is None:
                repeats = 0
                mine.append(self._tried(choice, long=False))
            elif doubted is not None:
                repeats = 0
                self._confirmed(doubted, mine)
            else:
                repeats += 1
            found = _last(choice, mine)
            if repeats > _REPEATS or (made is None and self._too_slow(found)):
                break
            best = self._nearest(mine)
            if best is None:
                share *= 0.97
                continue
            if abs(self._miss(best)) <= _NEAR:
                if not best.long:
                    best = self._confirmed(best, mine)
                if best.ratio is None:
                    continue
                if abs(self._miss(best)) <= 2 * _NEAR and self._good(best):
                    return best
            share = self._next(mine, best, 1 + 0.5 * repeats)
        while hopeful := [t for t in mine if self._doubtful(t) or (t.long and self._good(t))]:
            best = self._nearest(hopeful)
            assert best is not None
            if best.long:
                return best
            self._confirmed(best, mine)
        return None

    def _faster(self, mine: list[Tried]) -> Tried | None:
        """Return the one that keeps most of those that are faster than asked in a long run."""
        while fast := [t for t in mine if t.ratio is not None and self._fast(t)]:
            best = max(fast, key=lambda t: t.choice.kept_importance)
            if best.long:
                return best
            self._confirmed(best, mine)
        return None

    def _doubtful(self, found: Tried) -> bool:
        """Return whether a longer run may find that a candidate meets the target."""
        ratio = found.ratio
        return (
            not found.long
            and ratio is not None
            and ratio.low <= self.wanted + TOLERANCE
            and ratio.high >= self.wanted - TOLERANCE
        )

    def _too_slow(self, found: Tried | None) -> bool:
        """Return whether a candidate, if it runs, is slower than asked, beyond doubt."""
        if found is None or found.ratio is None:
            return True
        return self._miss(found) > TOLERANCE and not self._doubtful(found)

    def _fast(self, found: Tried) -> bool:
        """Return whether a candidate is at least as fast as asked."""
        assert found.ratio is not None
        return self._miss(found) <= 0 and found.ratio.low <= 1

    def _good(self, found: Tried) -> bool:
        """Return whether a candidate meets the target and is not slower than the original."""
        return found.ratio is not None and found.near(self.wanted) and found.ratio.low <= 1

    def _tried(self, choice: Choice, *, long: bool) -> Tried:
        found = self._watch.time(choice, self.whole_s, long=long)
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

    def _confirmed(self, best: Tried, mine: list[Tried]) -> Tried:
        """Return a candidate with what a longer run says of it."""
        longer = self._tried(best.choice, long=True)
        mine[:] = [longer if t is best else t for t in mine]
        return longer

    def _next(self, mine: Sequence[Tried], best: Tried, eagerness: float) -> float:
        """Return the predicted share to ask for, by the best candidate and one past the target."""
        assert best.ratio is not None
        across = [t for t in mine if t.ratio is not None and self._miss(t) * self._miss(best) < 0]
        other = min(across, key=lambda t: abs(self._miss(t)), default=None)
        if other is not None and eagerness == 1 and len(mine) <= _FREE:
            a, b = self._miss(best), self._miss(other)
            return best.predicted + (other.predicted - best.predicted) * a / (a - b)
        share = best.predicted * (1 - eagerness * self._miss(best) / best.ratio.value)
        return min(share, (best.predicted + 1) / 2)  # a model far too gloomy must not lead to 1

    def _nearest(self, tried: Sequence[Tried]) -> Tried | None:
        measured = [t for t in tried if t.ratio is not None]
        return min(measured, key=lambda t: abs(self._miss(t)), default=None)

    def _miss(self, found: Tried) -> float:
        assert found.ratio is not None
        return found.ratio.value - self.wanted

    def _unreachable(self) -> CheckFailed:
        what = f"latency={self._target.text}"
        best = self._nearest([found for mine in self._known for found in mine])
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


def _last(choice: Choice, mine: Sequence[Tried]) -> Tried | None:
    """Return the last measurement of a choice; None where it was not measured."""
    return next((t for t in mine if (t.choice.keep == choice.keep).all()), None)

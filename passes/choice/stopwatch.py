"""Candidates timed in turns with the original, which is what a ratio of latencies is made of."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passes.choice.budgeted import Choice
from irprune.passes.choice.candidates import Candidates
from irprune.protocols import Bencher, BenchSettings, Estimate, HostDevice


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

    @property
    def value(self) -> float:
        """The measured ratio; infinite where the candidate failed to run."""
        return inf if self.ratio is None else self.ratio.value

    @property
    def slower(self) -> bool:
        """Whether it is slower than the original beyond doubt, or failed to run."""
        return self.ratio is None or self.ratio.low > 1

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

"""What repeated measurements say: medians, their bootstrap intervals, and signs of trouble."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from irprune.protocols import Estimate

RESAMPLES = 1000
LEVEL = 0.95

OUTLIER_IQRS = 3.0
OUTLIER_SHARE = 0.1
DRIFT = 0.05
ENOUGH = 9
"""Samples below which nothing is said about outliers and drift."""

Floats = Sequence[float] | NDArray[np.float64]


def estimate(runs: Sequence[Floats], seed: int = 0) -> Estimate:
    """Return the mean over processes of the median of their samples, with a 95 % interval.

    `runs` holds the samples of each process in their order of time. Processes differ by where
    they lie in memory, for as long as they live, so processes are drawn first. Neighbours in time
    are alike, so of the samples of a process blocks are drawn (a circular block bootstrap). Drawn
    one by one they would all seem to know more than they do.
    """
    rng = np.random.default_rng(seed)
    values = [np.asarray(run, np.float64) for run in runs]
    count = len(values)
    medians = np.stack([_medians(each, rng) for each in values])
    drawn = (
        rng.integers(0, count, (RESAMPLES, count)) if count > 1 else np.zeros((RESAMPLES, 1), int)
    )
    means = medians[drawn, np.arange(RESAMPLES)[:, None]].mean(axis=1)
    value = float(np.mean([np.median(each) for each in values]))
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    # A bootstrap of few makes their scatter smaller by this factor than it is.
    few = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    return Estimate(value, float(value + few * (low - value)), float(value + few * (high - value)))


def _medians(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the medians of the block bootstrap samples of one process."""
    n = len(values)
    length = max(1, round(n ** (1 / 3)))
    starts = rng.integers(0, n, (RESAMPLES, -(-n // length), 1))
    drawn = (starts + np.arange(length)).reshape(RESAMPLES, -1)[:, :n] % n
    return np.asarray(np.median(values[drawn], axis=1))


def ratio(runs: Sequence[Floats], first: Sequence[Floats], seed: int = 0) -> Estimate:
    """Return the estimate of the ratios of each round, `runs` over `first`."""
    pairs = zip(runs, first, strict=True)
    return estimate([np.asarray(a, np.float64) / np.asarray(b, np.float64) for a, b in pairs], seed)


def width(found: Estimate) -> float:
    """Return the width of the interval as a fraction of the value."""
    return (found.high - found.low) / found.value


def doubts(samples: Floats) -> tuple[str, ...]:
    """Return what is odd about samples in their order of time: many outliers, or a drift."""
    values = np.asarray(samples, np.float64)
    if len(values) < ENOUGH:
        return ()
    found = []
    lower, upper = np.quantile(values, (0.25, 0.75))
    reach = OUTLIER_IQRS * (upper - lower)
    outliers = np.mean((values < lower - reach) | (values > upper + reach))
    if outliers > OUTLIER_SHARE:
        found.append(f"{outliers:.0%} of the rounds are outliers")
    third = len(values) // 3
    drift = float(np.median(values[-third:]) / np.median(values[:third])) - 1
    if abs(drift) > DRIFT:
        how = "slower" if drift > 0 else "faster"
        found.append(f"{abs(drift):.0%} {how} in the last third of the rounds than in the first")
    return tuple(found)

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


def estimate(samples: Floats, seed: int = 0) -> Estimate:
    """Return the median of samples in their order of time, with its 95 % bootstrap interval.

    Neighbours in time are alike, so blocks of them are drawn (a circular block bootstrap): drawn
    one by one they would seem to know more than they do.
    """
    values = np.asarray(samples, np.float64)
    n = len(values)
    length = max(1, round(n ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, n, (RESAMPLES, -(-n // length), 1))
    drawn = (starts + np.arange(length)).reshape(RESAMPLES, -1)[:, :n] % n
    medians = np.median(values[drawn], axis=1)
    low, high = np.quantile(medians, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(np.median(values)), float(low), float(high))


def ratio(samples: Floats, first: Floats, seed: int = 0) -> Estimate:
    """Return the median of the ratios of each round, `samples` over `first`, with its interval."""
    return estimate(np.asarray(samples, np.float64) / np.asarray(first, np.float64), seed)


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

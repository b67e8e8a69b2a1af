"""Samples: different, uniform first, bounded and spread, the same for the same seed."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError
from irprune.explore.sampling import Config, grid, most_per_sum, sequences, spread, uniform

RATES = (0.3, 0.5, 0.7)


def _sums(sample: list[Config]) -> Counter[int]:
    """How often each Σ δ_b comes, in hundredths."""
    return Counter(round(100 * sum(1 - rate for rate in config)) for config in sample)


@given(
    st.integers(1, 12),
    st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    st.integers(1, 60),
    st.integers(0, 99),
)
def test_properties(modules: int, tenths: list[int], count: int, seed: int) -> None:
    rates = [each / 10 for each in tenths]
    try:
        sample = spread(modules, rates, count, seed=seed)
    except IrpruneError as error:
        most = most_per_sum(modules, len(rates), count)
        if count < len(rates):
            assert "uniform ones" in str(error)
        else:
            assert len(rates) ** modules < 50_000
            every = _sums(list(itertools.product(rates, repeat=modules)))
            assert sum(min(most, number) for number in every.values()) < count
        return
    assert len(sample) == len(set(sample)) == count
    assert sample[: len(rates)] == [(rate,) * modules for rate in rates]
    assert all(len(config) == modules and set(config) <= set(rates) for config in sample)
    assert max(_sums(sample).values()) <= most_per_sum(modules, len(rates), count)
    assert spread(modules, rates, count, seed=seed) == sample


@pytest.mark.parametrize("modules", [11, 16])
def test_the_papers_setting(modules: int) -> None:
    """500 configurations of Inception-V3 and ResNet-50: p(Σ δ_b) ≤ λ / (B·(|Δ|-1)+1)."""
    sample = spread(modules, RATES, 500)
    assert len(set(sample)) == 500
    assert max(_sums(sample).values()) / 500 <= 1.5 / (modules * 2 + 1)
    assert spread(modules, RATES, 500, seed=1) != sample


def _far(sample: list[Config], modules: int) -> float:
    """Kolmogorov's distance between the sums and the uniform distribution over all of them."""
    found = _sums(sample)
    low, high = modules * 30, modules * 70
    steps = range(low, high + 1, 20)
    below = itertools.accumulate(found[total] for total in steps)
    wanted = [(i + 1) / len(steps) for i in range(len(steps))]
    return max(abs(each / len(sample) - want) for each, want in zip(below, wanted, strict=True))


def test_sizes_spread_close_to_uniformly_and_random_ones_do_not() -> None:
    for seed in range(5):
        assert _far(spread(16, RATES, 500, seed=seed), 16) < 0.08
        assert _far(uniform(16, RATES, 500, seed=seed), 16) > 0.2


def test_every_configuration_with_a_sum_is_equally_likely() -> None:
    """The ten with Σ of two 0.3 and three 0.5 removed come about equally often."""
    found = Counter(
        config
        for seed in range(400)
        for config in spread(5, (0.3, 0.5), 6, seed=seed)
        if config.count(0.3) == 2
    )
    assert len(found) == 10
    mean = statistics.fmean(found.values())
    assert all(0.5 * mean < times < 1.6 * mean for times in found.values())


def test_uneven_rates_with_equal_sums_are_told_apart_exactly() -> None:
    """0.1 + 0.2 and 0.3 + 0 remove the same although their float sums differ."""
    sample = spread(2, (0.0, 0.1, 0.2, 0.3), 10, bound=3)
    assert max(_sums(sample).values()) <= most_per_sum(2, 4, 10, 3)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((3, RATES, 2), "fewer than the 3 uniform"),
        ((2, RATES, 9), "at most"),
        ((0, RATES, 9), "number of modules"),
        ((3, (0.5, 1.0), 4), "outside"),
        ((3, (0.5, 0.5), 4), "different"),
        ((3, (), 4), "at least one"),
        ((3, RATES, 10**6), "a sample has"),
        ((500, (0.1234567, 0.2345671, 0.3456713, 0.456), 500), "too many different sums"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: tuple[int, tuple[float, ...], int], reason: str
) -> None:
    with pytest.raises(IrpruneError, match=reason):
        spread(*arguments)


def test_grid_is_everything() -> None:
    assert grid(2, (0, 0.5)) == [(0, 0), (0, 0.5), (0.5, 0), (0.5, 0.5)]
    with pytest.raises(IrpruneError, match="more than"):
        grid(30, RATES)


def test_random_is_distinct_and_bounded() -> None:
    assert len(set(uniform(3, RATES, 27))) == 27
    assert uniform(16, RATES, 50, seed=3) == uniform(16, RATES, 50, seed=3)
    assert len(set(uniform(100, RATES, 50))) == 50
    with pytest.raises(IrpruneError, match="only 27"):
        uniform(3, RATES, 28)


def test_sequences_share_a_rate() -> None:
    sample = sequences((3, 4, 6, 3), RATES, 8)
    assert len(set(sample)) == 8
    for config in sample:
        assert len(config) == 16
        for start, end in itertools.pairwise((0, 3, 7, 13, 16)):
            assert len(set(config[start:end])) == 1
    with pytest.raises(IrpruneError, match="at least one module"):
        sequences((3, 0), RATES, 2)

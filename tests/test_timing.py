import numpy as np
import pytest

from irprune import timing
from irprune.protocols import Estimate


def test_an_estimate_is_the_median_within_its_interval() -> None:
    samples = np.random.default_rng(0).lognormal(0, 0.1, 50)
    found = timing.estimate([samples])
    assert found.value == np.median(samples)
    assert samples.min() < found.low < found.value < found.high < samples.max()
    assert timing.estimate([samples]) == found
    assert timing.estimate([[2.0] * 7]) == Estimate(2, 2, 2)
    assert timing.estimate([[3.0]]) == Estimate(3, 3, 3)


@pytest.mark.parametrize("follow", [0.0, 0.6])
def test_intervals_hold_the_truth_as_often_as_they_say(follow: float) -> None:
    """Also where a sample is like the one before it, which a plain bootstrap overlooks."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        noise = rng.standard_normal(100)
        for k in range(1, 100):
            noise[k] = follow * noise[k - 1] + (1 - follow**2) ** 0.5 * noise[k]
        found = timing.estimate([5 + noise])
        hits += found.low <= 5 <= found.high
    assert hits >= (180 if follow == 0 else 160)


def test_intervals_know_that_processes_differ() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        found = timing.estimate(
            [5 + rng.normal() + 0.1 * rng.standard_normal(20) for _ in range(6)]
        )
        hits += found.low <= 5 <= found.high
    assert hits >= 170


def test_the_value_is_the_mean_of_the_medians_of_processes() -> None:
    assert timing.estimate([[1, 2, 9], [4, 4, 4]]).value == 3


def test_a_ratio_goes_round_by_round() -> None:
    """A disturbance that lasts over a round hits both models and leaves their ratio alone."""
    slow = np.where(np.arange(30) % 3 == 0, 4.0, 1.0)
    assert timing.ratio([2 * slow, slow], [4 * slow, 2 * slow]) == Estimate(0.5, 0.5, 0.5)
    assert timing.ratio([[2, 2, 2]], [[1, 2, 4]]).value == 1


def test_the_width_is_relative() -> None:
    assert timing.width(Estimate(2, 1.9, 2.1)) == pytest.approx(0.1)


def test_doubts() -> None:
    rng = np.random.default_rng(0)
    calm = rng.normal(10, 0.1, 90)
    assert timing.doubts(calm) == ()
    odd = np.where(np.arange(90) % 6 == 0, 20, calm)
    assert timing.doubts(odd) == ("17% of the rounds are outliers",)
    hot = calm * np.linspace(1, 1.15, 90)
    assert timing.doubts(hot) == ("10% slower in the last third of the rounds than in the first",)
    assert "faster" in timing.doubts(hot[::-1])[0]
    assert timing.doubts([1, 9, 9]) == ()

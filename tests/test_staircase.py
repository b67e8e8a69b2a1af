"""Laws are found in times that were made by a known law."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from irprune.channels import analyse
from irprune.kernels import NodeKernel, split
from irprune.staircase import Finding, Law, Samples, Term, features, fit, learn
from tests.strategies import Net

Numbers = NDArray[np.float64]


def _kernel() -> NodeKernel:
    """A convolution whose input and output channels are both free."""
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 3, 96, name="a")
    x = net.conv(x, 96, 96, name="b")
    net.conv(x, 96, 4, name="y")
    kernels = split(analyse(net.model().ir.graph), {})
    return next(k for k in kernels if "b.w" in [v.name for v in k.inputs])


def _samples(times: Callable[[Numbers, Numbers], Numbers], noise: float = 0.02) -> Samples:
    kernel = _kernel()
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 97, (120, 2))
    lengths[::2] = lengths[::2] // 16 * 16 + 16
    read = kernel.columns("in")[0]
    seconds = times(lengths[:, read].astype(float), lengths[:, 1 - read].astype(float))
    seconds = seconds * rng.normal(1, noise, len(seconds))
    return Samples(kernel, lengths, seconds)


def up(length: Numbers, step: int) -> Numbers:
    return np.ceil(length / step) * step


def test_a_step_is_found() -> None:
    sample = _samples(lambda read, made: 1e-5 + 1e-7 * up(read, 16) * up(made, 16))
    terms, found = learn([sample])
    finding = found[sample.kernel.kind]
    assert finding.law.step == 16 and finding.law.unit == 16
    assert finding.error < 0.03 < finding.straight
    near = terms[sample.kernel.signature].at(sample.kernel, np.array([[33, 33], [48, 48]]))
    assert near[0] == pytest.approx(near[1], rel=0.05)


def test_a_condition_is_found() -> None:
    """Lengths that are no multiples of 4 on the reading side take a path three times as slow."""
    sample = _samples(lambda read, made: np.where(read % 4, 3e-7, 1e-7) * read * made)
    law = learn([sample])[1][sample.kernel.kind].law
    assert law.condition == ("in", 4)
    read = sample.kernel.columns("in")[0]
    assert law.units(sample.kernel)[read] == 4


def test_straight_lines_have_no_stairs() -> None:
    sample = _samples(lambda read, made: 2e-5 + 1e-7 * read * made)
    finding = learn([sample])[1][sample.kernel.kind]
    assert finding.law == Law()
    assert finding.error == finding.straight


def test_a_kernel_seen_rarely_takes_the_rates_of_its_kind() -> None:
    rich = _samples(lambda read, made: 1e-7 * up(read, 16) * up(made, 16), noise=0)
    net = Net()
    x = net.conv(net.input(1, 3, 8, 8), 3, 96, name="a")
    x = net.conv(x, 96, 80, name="b")
    net.conv(x, 80, 4, name="y")
    kernels = split(analyse(net.model().ir.graph), {})
    rare = next(k for k in kernels if "b.w" in [v.name for v in k.inputs])
    poor = Samples(rare, np.array([[96, 80]]), np.array([1e-7 * 96 * 80]))
    terms, _ = learn([rich, poor])
    assert (terms[rare.signature].at(rare, np.array([[32, 32]])) > 0).all()


def test_times_are_never_negative() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((20, 5)), rng.random(20)
    assert (fit(x, y) >= 0).all()


def test_the_fit_is_the_best_of_those_that_are_not_negative() -> None:
    rng = np.random.default_rng(2)
    x = rng.random((40, 4))
    rates = np.array([0.5, 0.0, 2.0, 0.0])
    assert fit(x, x @ rates) == pytest.approx(rates, abs=1e-4)


def test_a_term_reads_its_law() -> None:
    kernel = _kernel()
    law = Law(8, ("out", 2))
    width = features(kernel, np.ones((1, 2), np.int64), 8).shape[1]
    term = Term(law, np.eye(width)[0], 3 * np.eye(width)[0])
    made = kernel.columns("out")[0]
    lengths = np.full((2, 2), 4)
    lengths[1, made] = 5
    assert term.at(kernel, lengths).tolist() == [1.0, 3.0]


def test_a_finding_survives_json() -> None:
    found = Finding(Law(16, ("in", 4)), 0.1, 0.5, 2.0)
    data = {"law": {"step": 16, "condition": ["in", 4]}, "error": 0.1, "straight": 0.5}
    assert Finding.from_json(data | {"seconds": 2.0}) == found
    with pytest.raises(KeyError):
        Finding.from_json(data)
    with pytest.raises(ValueError, match="no role"):
        Finding.from_json({**data, "seconds": 1, "law": {"step": 1, "condition": ["up", 4]}})

"""Fillers: the distributions that Caffe documents, the same numbers for the same seed."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from irprune.errors import IrpruneError
from irprune.frontends.caffe.fillers import fill
from irprune.frontends.caffe.text import parse

SHAPE = (40, 30, 5, 5)
FAN_IN, FAN_OUT = 30 * 25, 40 * 25


def filled(text: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> NDArray[np.float32]:
    message = parse(text)
    values = fill(message, shape, np.random.default_rng(seed))
    assert values.dtype == np.float32
    assert values.shape == shape
    assert not list(message.unread())
    return values


def test_a_constant_is_the_default_and_zero() -> None:
    assert not filled("").any()
    assert not filled("type: 'constant'").any()
    assert (filled("type: 'constant' value: 0.25") == 0.25).all()


def test_uniform_stays_between_its_ends() -> None:
    values = filled("type: 'uniform' min: -1 max: 3")
    assert -1 <= values.min() < -0.99
    assert 2.99 < values.max() <= 3
    assert 0.2 < filled("type: 'uniform'").mean() < 0.8


def test_gaussian_has_mean_and_deviation() -> None:
    values = filled("type: 'gaussian' mean: 2 std: 0.5")
    assert abs(values.mean() - 2) < 0.02
    assert abs(values.std() - 0.5) < 0.02
    assert abs(filled("type: 'gaussian'").std() - 1) < 0.02


def test_sparse_gaussian_keeps_as_many_inputs_per_output() -> None:
    values = filled("type: 'gaussian' std: 0.1 sparse: 10")
    assert abs(np.count_nonzero(values) / values.size - 10 / 40) < 0.02
    assert not filled("type: 'gaussian' sparse: 0").any()


@pytest.mark.parametrize(
    ("norm", "fan"),
    [
        ("", FAN_IN),
        ("variance_norm: FAN_IN", FAN_IN),
        ("variance_norm: FAN_OUT", FAN_OUT),
        ("variance_norm: AVERAGE", (FAN_IN + FAN_OUT) / 2),
        ("variance_norm: 2", (FAN_IN + FAN_OUT) / 2),
    ],
)
def test_xavier_and_msra_scale_with_the_fan(norm: str, fan: float) -> None:
    xavier = filled(f"type: 'xavier' {norm}")
    assert 0.99 * sqrt(3 / fan) < np.abs(xavier).max() <= sqrt(3 / fan) * 1.000001
    assert abs(xavier.std() - sqrt(1 / fan)) < 0.02 * sqrt(1 / fan)
    msra = filled(f"type: 'msra' {norm}")
    assert abs(msra.std() - sqrt(2 / fan)) < 0.02 * sqrt(2 / fan)
    assert abs(msra.mean()) < 0.02 * sqrt(2 / fan)


def test_one_axis_has_a_fan_too() -> None:
    assert np.abs(filled("type: 'xavier'", (4000,))).max() <= sqrt(3)
    fan_out = np.abs(filled("type: 'xavier' variance_norm: FAN_OUT", (4000,))).max()
    assert fan_out <= sqrt(3 / 4000)
    assert filled("type: 'msra'", ()).shape == ()


def test_the_positive_unit_ball_sums_to_one_per_output() -> None:
    values = filled("type: 'positive_unitball'")
    assert (values >= 0).all()
    np.testing.assert_allclose(values.sum(axis=(1, 2, 3)), 1, rtol=1e-5)


def test_bilinear_is_the_kernel_that_interpolates() -> None:
    values = filled("type: 'bilinear'", (2, 1, 4, 4))
    line = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_array_equal(values[0, 0], np.outer(line, line).astype(np.float32))
    np.testing.assert_array_equal(values[1, 0], values[0, 0])
    odd = filled("type: 'bilinear'", (1, 1, 3, 3))
    np.testing.assert_array_equal(odd[0, 0, 1], np.array([0.5, 1, 0.5], np.float32))


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "xavier", "msra", "positive_unitball"])
def test_the_seed_decides(kind: str) -> None:
    text = f"type: '{kind}'"
    np.testing.assert_array_equal(filled(text, seed=3), filled(text, seed=3))
    assert not np.array_equal(filled(text, seed=3), filled(text, seed=4))


@pytest.mark.parametrize(
    ("text", "shape", "reason"),
    [
        ("type: 'xaver'", (2, 2), "`type` cannot be xaver; did you mean xavier?"),
        ("type: xavier", (2, 2), "`type` must be a quoted string"),
        ("type: 'constant' value: x", (2, 2), "`value` must be a number"),
        ("type: 'gaussian' std: -1", (2, 2), "`std` must be zero or more"),
        ("type: 'gaussian' sparse: 3", (2, 2), "`sparse` must be at most the outputs"),
        ("type: 'gaussian' sparse: 1", (), "`sparse` must be at most the outputs"),
        ("type: 'uniform' min: 2", (2, 2), "`max` must be at least `min`"),
        ("type: 'uniform' max: inf", (2, 2), "`max` must be at least `min`"),
        ("type: 'xavier' variance_norm: FAN", (2, 2), "`variance_norm` cannot be FAN"),
        ("type: 'bilinear'", (2, 2), "square kernels, the shape is [2, 2]"),
        ("type: 'bilinear'", (1, 1, 2, 3), "square kernels"),
    ],
)
def test_what_cannot_be_filled_is_refused(text: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(IrpruneError) as caught:
        fill(parse(text), shape, np.random.default_rng(0))
    assert reason in str(caught.value)

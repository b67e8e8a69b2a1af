"""How two activations are compared."""

from __future__ import annotations

import numpy as np
import pytest

from irprune.proof.compare import channel_error, difference, relative_error


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([1, 2], [1, 2], 0),
        ([1, 2.5], [1, 2], 0.25),
        ([-4, 0], [-5, 0], 0.2),
        ([0, 0], [0, 0], 0),
        ([0, 1e-9], [0, 0], np.inf),
        ([], [], 0),
        ([np.nan, 1], [np.nan, 2], 0.5),
        ([np.nan, 1], [1, 1], np.inf),
        ([1, 1], [np.nan, 1], np.inf),
        ([np.inf, -np.inf, 1], [np.inf, -np.inf, 1], 0),
        ([np.inf, 1], [-np.inf, 1], np.inf),
        ([np.nan, 1], [np.inf, 1], np.inf),
        ([np.inf, np.nan], [np.inf, np.nan], 0),
    ],
)
def test_relative_error(got: list[float], want: list[float], error: float) -> None:
    arrays = np.array(got, np.float32), np.array(want, np.float32)
    assert relative_error(*arrays) == pytest.approx(error)


@pytest.mark.parametrize("rounded", [False, True])
def test_shapes_and_types_must_agree(rounded: bool) -> None:
    ones = np.ones((1, 3), np.float32)
    assert difference(ones, ones[0], rounded) == np.inf
    assert difference(ones, ones.astype(np.float64), rounded) == np.inf


def test_rounding_may_tip_one_integer_in_a_thousand() -> None:
    want = np.arange(1000)
    one, two = want.copy(), want.copy()
    one[:1] += 1
    two[:2] += 1
    assert difference(one, want, rounded=True) == 0
    assert difference(two, want, rounded=True) == np.inf
    assert difference(one, want, rounded=False) == np.inf
    assert difference(want, want, rounded=False) == 0


def test_text_is_compared_as_it_is() -> None:
    assert difference(np.array(["a", "b"]), np.array(["a", "b"]), rounded=False) == 0
    assert difference(np.array(["a", "c"]), np.array(["a", "b"]), rounded=False) == np.inf


def test_errors_of_single_channels() -> None:
    want = np.array([[1, 2, 0, np.nan], [1e-6, 0, 0, np.inf]], np.float32)
    got = want.copy()
    assert channel_error(got, want, {0, 1, 5}) == 0
    got[1, 0] *= 1.5
    assert channel_error(got, want, {0}) == pytest.approx(0.5)
    assert channel_error(got, want, {1}) == pytest.approx(5e-7, rel=0.1)
    got[0, 2] = 1e-9
    assert channel_error(got, want, {1}) == np.inf
    assert channel_error(np.arange(3), np.arange(3) + 1, {0}) == 0

"""Pooling against a loop over Caffe's windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from caffe_run import apply, imported, layer, random, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irprune.errors import IrpruneError

METHODS = ("MAX", "AVE", "STOCHASTIC")


def windows(size: int, kernel: int, pad: int, stride: int, up: bool, padded: bool) -> list[slice]:
    """Caffe's windows along an axis, as they start and end in image and padding."""
    steps = (size + 2 * pad - kernel) / stride
    number = int(np.ceil(steps) if up else np.floor(steps)) + 1
    if padded and (number - 1) * stride >= size + pad:
        number -= 1
    starts = [k * stride - pad for k in range(number)]
    return [slice(start, min(start + kernel, size + pad)) for start in starts]


@dataclass(frozen=True)
class Window:
    """How a window moves along one axis."""

    kernel: int
    pad: int
    stride: int


def reference(
    x: np.ndarray, method: str, window: tuple[Window, Window], up: bool
) -> np.ndarray | None:
    """Caffe's pooling; None where a window sees nothing of the image."""
    padded = any(w.pad > 0 for w in window)
    rows, columns = (
        windows(size, w.kernel, w.pad, w.stride, up, padded)
        for size, w in zip(x.shape[2:], window, strict=True)
    )
    y = np.zeros((*x.shape[:2], len(rows), len(columns)), np.float64)
    if not y.size:
        return None
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            part = x[:, :, max(row.start, 0) : row.stop, max(column.start, 0) : column.stop]
            if not part.size:
                return None
            if method == "MAX":
                y[:, :, i, j] = part.max((2, 3))
            elif method == "AVE":
                area = (row.stop - row.start) * (column.stop - column.start)
                y[:, :, i, j] = part.astype(np.float64).sum((2, 3)) / area
            else:
                y[:, :, i, j] = (part.astype(np.float64) ** 2).sum((2, 3)) / part.sum((2, 3))
    return y


@st.composite
def spelled(draw: st.DrawFn) -> tuple[tuple[Window, Window], str]:
    """Windows along both axes and how a file spells them."""
    one = st.builds(Window, st.integers(1, 5), st.integers(0, 3), st.integers(1, 4)).filter(
        lambda w: w.pad < w.kernel
    )
    high, wide = draw(one), draw(one)
    if draw(st.booleans()):
        words = f"kernel_size: {high.kernel} pad: {high.pad} stride: {high.stride}"
        return (high, high), words
    words = " ".join(
        f"{stem}_h: {getattr(high, stem)} {stem}_w: {getattr(wide, stem)}"
        for stem in ("kernel", "pad", "stride")
    )
    return (high, wide), words


@given(st.sampled_from(METHODS), st.integers(1, 9), st.integers(1, 9), spelled(), st.booleans())
@settings(max_examples=150)
def test_windows_and_divisors(
    method: str,
    height: int,
    width: int,
    window: tuple[tuple[Window, Window], str],
    up: bool,
) -> None:
    axes, words = window
    assume(method != "STOCHASTIC" or not any(w.pad for w in axes))
    x = np.abs(random(2, 3, height, width)) + 0.1
    body = f"pooling_param {{ pool: {method} {words} {'' if up else 'round_mode: FLOOR'} }}"
    expected = reference(x, method, axes, up)
    if expected is None:
        with pytest.raises(IrpruneError, match="lies outside the image"):
            apply("Pooling", body, x)
        return
    y = apply("Pooling", body, x)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_the_last_window_has_a_smaller_divisor() -> None:
    x = np.ones((1, 1, 6, 6), np.float32)
    y = apply("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }", x)
    np.testing.assert_allclose(y, np.ones((1, 1, 3, 3)))


def test_padding_counts_in_the_divisor() -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    y = apply("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }", x)
    np.testing.assert_allclose(
        y[0, 0], [[4 / 9, 6 / 9, 2 / 6], [6 / 9, 1, 3 / 6], [2 / 6, 3 / 6, 1 / 4]], rtol=1e-6
    )


@pytest.mark.parametrize("kernel", ["", "kernel_size: 2"])
@pytest.mark.parametrize("method", METHODS)
def test_global_pooling(method: str, kernel: str) -> None:
    x = np.abs(random(2, 3, 5, 4))
    y = apply("Pooling", f"pooling_param {{ pool: {method} global_pooling: true {kernel} }}", x)
    expected = {
        "MAX": x.max((2, 3)),
        "AVE": x.mean((2, 3)),
        "STOCHASTIC": (x**2).sum((2, 3)) / x.sum((2, 3)),
    }[method]
    np.testing.assert_allclose(y[:, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


def test_a_mask_that_leaves_the_graph_is_told() -> None:
    x, said = random(2, 3, 4, 4), []
    head = 'input: "x0" input_shape { dim: 2 dim: 3 dim: 4 dim: 4 }\n'
    body = "pooling_param { kernel_size: 2 stride: 2 }"
    found = imported(head + layer("Pooling", body, tops=2), warn=said.append)
    assert [line.partition(":")[0] for line in said] == ["y1 is the mask of a pooling"]
    y = run(found, {"x0": x})
    np.testing.assert_array_equal(x.ravel()[y["y1"]], y["y0"])


def test_ceil_mode_of_forks() -> None:
    x = random(1, 2, 6, 6)
    for text, size in (("true", 3), ("false", 2)):
        body = f"pooling_param {{ kernel_size: 3 stride: 2 ceil_mode: {text} }}"
        assert apply("Pooling", body, x).shape == (1, 2, size, size)


def test_rectangular_windows() -> None:
    x = random(1, 2, 6, 7)
    body = "pooling_param { kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pool: AVE }"
    y = apply("Pooling", body, x)
    assert y.shape == (1, 2, 3, 5)
    np.testing.assert_allclose(y[0, 1, 2, 4], x[0, 1, 4:6, 4:7].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("kernel_size: 2 pad: 2", "the padding must be smaller than the kernel"),
        ("kernel_size: 1 stride: 4", "lies outside the image"),
        ("kernel_size: 9", "lies outside the image"),
        ("kernel_size: 3 kernel_h: 3", "kernel_h and kernel_w stand alone"),
        ("stride: 1", "needs kernel_size once or 2 times"),
        ("kernel_size: 3 pool: STOCHASTIC pad: 1", "Caffe pads MAX and AVE pooling only"),
    ],
)
def test_bad_windows(body: str, reason: str) -> None:
    head = 'input: "x0" input_shape { dim: 1 dim: 2 dim: 6 dim: 6 }\n'
    with pytest.raises(IrpruneError, match=reason) as caught:
        imported(head + layer("Pooling", f"pooling_param {{ {body} }}"))
    assert "layer it (Pooling)" in str(caught.value)
    assert "net.prototxt:2:" in str(caught.value)

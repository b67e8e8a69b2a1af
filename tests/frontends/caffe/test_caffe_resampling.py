"""Interp, Upsample and Reorg against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_run import apply, close, imported, layer, random, run

from irprune.errors import IrpruneError

X = random(2, 6, 4, 4)


def interpolated(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with aligned corners, one axis after the other."""
    for axis, to in ((2, height), (3, width)):
        at = np.linspace(0, x.shape[axis] - 1, to)
        low = np.minimum(at.astype(int), x.shape[axis] - 2)
        share = (at - low).reshape([-1 if k == axis else 1 for k in range(4)])
        x = x.take(low, axis) * (1 - share) + x.take(low + 1, axis) * share
    return x


@pytest.mark.parametrize(
    ("body", "size", "crop"),
    [
        ("height: 7 width: 5", (7, 5), 0),
        ("zoom_factor: 3", (10, 10), 0),
        ("shrink_factor: 2", (2, 2), 0),
        ("shrink_factor: 2 zoom_factor: 4", (5, 5), 0),
        ("height: 4 width: 6 pad_beg: -1 pad_end: -1", (4, 6), 1),
    ],
)
def test_interp(body: str, size: tuple[int, int], crop: int) -> None:
    inner = X[:, :, crop : 4 - crop, crop : 4 - crop]
    close(apply("Interp", f"interp_param {{ {body} }}", X), interpolated(inner, *size))


@pytest.mark.parametrize(("stride", "shape"), [(2, (2, 8, 4, 6)), (3, (1, 9, 3, 6))])
def test_reorg_as_darknet_has_it(stride: int, shape: tuple[int, int, int, int]) -> None:
    x = random(*shape)
    images, channels, height, width = shape
    few = channels // stride**2
    flat, y = x.reshape(images, -1), np.zeros((images, x[0].size), np.float32)
    for c in range(channels):
        for j in range(height):
            for i in range(width):
                offset = c // few
                column, row = i * stride + offset % stride, j * stride + offset // stride
                source = column + width * stride * (row + height * stride * (c % few))
                y[:, i + width * (j + height * c)] = flat[:, source]
    expected = y.reshape(images, channels * stride**2, height // stride, width // stride)
    close(apply("Reorg", f"reorg_param {{ stride: {stride} }}", x), expected)


def test_unpooling_puts_maxima_where_they_came_from() -> None:
    x = random(1, 2, 4, 4)
    text = """
        input: "x" input_shape { dim: 1 dim: 2 dim: 4 dim: 4 }
        layer { name: "p" type: "Pooling" bottom: "x" top: "y" top: "mask"
                pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "u" type: "Upsample" bottom: "y" bottom: "mask" top: "z" }"""
    z = run(imported(text), {"x": x})["z"]
    maxima = x.reshape(1, 2, 2, 2, 2, 2).max((3, 5)).repeat(2, 2).repeat(2, 3)
    close(z, np.where(x == maxima, x, 0))


def test_interp_to_the_size_of_a_second_bottom() -> None:
    close(apply("Interp", "", X, random(1, 1, 6, 3)), interpolated(X, 6, 3))


def test_interp_of_rectangles() -> None:
    x = random(1, 2, 3, 5)
    close(apply("Interp", "interp_param { zoom_factor: 2 }", x), interpolated(x, 5, 9))
    close(apply("Interp", "interp_param { shrink_factor: 2 }", x), interpolated(x, 2, 3))
    y = apply("Interp", "interp_param { height: 4 width: 4 pad_beg: -1 }", x)
    close(y, interpolated(x[:, :, 1:, 1:], 4, 4))
    y = apply("Interp", "interp_param { height: 4 width: 4 pad_end: -1 }", x)
    close(y, interpolated(x[:, :, :-1, :-1], 4, 4))
    y = apply("Interp", "interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -1 }", x)
    close(y, interpolated(x[:, :, 1:-1, 1:-1], 1, 5))


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ("", (8, 8)),
        ("scale: 3", (12, 12)),
        ("scale_h: 1 scale_w: 3", (4, 12)),
        ("upsample_h: 8 upsample_w: 12", (8, 12)),
        ("height: 12 width: 4", (12, 4)),
    ],
)
def test_upsample_repeats_pixels(body: str, size: tuple[int, int]) -> None:
    expected = X.repeat(size[0] // 4, 2).repeat(size[1] // 4, 3)
    close(apply("Upsample", f"upsample_param {{ {body} }}", X), expected)


def test_upsample_of_rectangles() -> None:
    x = random(1, 2, 3, 5)
    close(apply("Upsample", "", x), x.repeat(2, 2).repeat(2, 3))
    body = "upsample_param { scale_h: 3 scale_w: 2 }"
    close(apply("Upsample", body, x), x.repeat(3, 2).repeat(2, 3))


def test_upsample_bilinear() -> None:
    body = 'upsample_param { scale: 2 mode: "bilinear" }'
    close(apply("Upsample", body, X), interpolated(X, 8, 8))


def test_reorg_reversed_moves_channels_to_blocks() -> None:
    x = random(2, 8, 3, 5)
    blocks = x.reshape(2, 2, 2, 2, 3, 5).transpose(0, 3, 4, 1, 5, 2)
    y = apply("Reorg", "reorg_param { reverse: true }", x)
    close(y, blocks.reshape(2, 2, 6, 10))


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("Interp", "", "needs zoom_factor, shrink_factor, or height and width"),
        ("Interp", "interp_param { height: 3 }", "needs zoom_factor"),
        ("Interp", "interp_param { zoom_factor: 0 }", "factors and sizes must be positive"),
        ("Interp", "interp_param { zoom_factor: 2 pad_beg: 1 }", "pads only crop"),
        ("Interp", "interp_param { zoom_factor: 2 pad_end: -4 }", "leave nothing of"),
        ("Upsample", "upsample_param { scale: 0 }", "scales and sizes must be positive"),
        ("Upsample", 'upsample_param { mode: "cubic" }', "mode cubic is not known"),
        ("Reorg", "reorg_param { stride: 3 }", "cannot reorganise"),
        ("Reorg", "reorg_param { stride: 0 }", "cannot reorganise"),
    ],
)
def test_bad_resampling(kind: str, body: str, reason: str) -> None:
    head = 'input: "x0" input_shape { dim: 1 dim: 8 dim: 4 dim: 4 }\n'
    with pytest.raises(IrpruneError, match=reason):
        imported(head + layer(kind, body))

"""Crop, Concat, Slice, Split and Filter against slices of numpy."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_run import apply, apply_all, close, imported, layer, random, run

from irprune.errors import IrpruneError

X = random(2, 6, 4, 4)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("", np.s_[:, :, :2, :3]),
        ("crop_param { offset: 1 }", np.s_[:, :, 1:3, 1:4]),
        ("crop_param { axis: 1 offset: 3 offset: 2 offset: 0 }", np.s_[:, 3:5, 2:4, :3]),
    ],
)
def test_crop(body: str, part: tuple[slice, ...]) -> None:
    like = random(2, 2, 2, 3)
    close(apply("Crop", body, X, like), X[part])


def test_concat() -> None:
    close(apply("Concat", "", X, 2 * X), np.concatenate([X, 2 * X], 1))
    close(apply("Concat", "concat_param { axis: -1 }", X, X), np.concatenate([X, X], 3))


@pytest.mark.parametrize("blob", [[0, 1, 0, 0, 1, 0], [1, 4]])
def test_filter_by_mask_or_indices(blob: list[int]) -> None:
    y = apply("Filter", "filter_param { num_output: 2 }", X, blobs=[np.array(blob, np.float32)])
    close(y, X[:, [1, 4]])


def test_filter_without_weights_keeps_the_first() -> None:
    close(apply("Filter", "filter_param { num_output: 4 }", X), X[:, :4])


@pytest.mark.parametrize("blob", [[0, 1, 0, 0, 0, 0], [1, 6], [-1, 2], [1, 2, 3]])
def test_filters_that_select_something_else(blob: list[int]) -> None:
    with pytest.raises(IrpruneError, match="its blob does not select 2 of 6 channels"):
        apply("Filter", "filter_param { num_output: 2 }", X, blobs=[np.array(blob, np.float32)])


@pytest.mark.parametrize(
    ("body", "axis", "cuts"),
    [
        ("slice_point: 1 slice_point: 4", 1, [1, 4]),
        ("", 1, [2, 4]),
        ("axis: -1 slice_point: [1, 2]", 3, [1, 2]),
        ("slice_dim: 2 slice_point: [1, 3]", 2, [1, 3]),
    ],
)
def test_slice(body: str, axis: int, cuts: list[int]) -> None:
    parts = apply_all("Slice", f"slice_param {{ {body} }}", X, tops=3)
    for part, expected in zip(parts, np.split(X, cuts, axis), strict=True):
        close(part, expected)


def test_concat_of_three_on_the_axis_of_the_older_field() -> None:
    parts = [random(2, n, 3, seed=n) for n in (1, 2, 3)]
    close(apply("Concat", "", *parts), np.concatenate(parts, 1))
    rows = [random(n, 3, seed=n) for n in (1, 2, 3)]
    close(apply("Concat", "concat_param { concat_dim: 0 }", *rows), np.concatenate(rows))


def test_split() -> None:
    text = """input: "x" input_shape { dim: 2 dim: 3 }
        layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" }
        layer { name: "m" type: "Power" bottom: "b" top: "c" power_param { scale: 2 } }
        layer { name: "p" type: "Eltwise" bottom: "a" bottom: "c" top: "y" }"""
    x = random(2, 3)
    close(run(imported(text), {"x": x})["y"], 3 * x)


@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_shuffle_channel(group: int) -> None:
    each = 6 // group
    expected = np.empty_like(X)
    for i in range(group):
        for j in range(each):
            expected[:, j * group + i] = X[:, i * each + j]
    body = f"shuffle_channel_param {{ group: {group} }}"
    close(apply("ShuffleChannel", body, X), expected)


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("Slice", "slice_param { slice_point: 6 } top: 'y1'", "cannot slice 6 into 2 parts"),
        ("Slice", "slice_param { slice_point: [2, 4] } top: 'y1'", "cannot slice 6 into 2 parts"),
        ("Slice", "top: 'y1' top: 'y2' top: 'y3'", "cannot slice 6 into 4 parts"),
        ("Permute", "permute_param { order: 0 order: 0 }", "does not name axes"),
        ("Permute", "permute_param { order: 4 }", "does not name axes"),
        ("ShuffleChannel", "shuffle_channel_param { group: 4 }", "cannot shuffle"),
        ("Tile", "tile_param { tiles: 0 }", "tiles cannot be 0"),
        ("Filter", "filter_param { num_output: 7 }", "cannot keep 7 channels of"),
        ("Concat", "concat_param { axis: 4 }", "has no axis 4: its bottom has 4 axes"),
    ],
)
def test_bad_movements(kind: str, body: str, reason: str) -> None:
    head = 'input: "x0" input_shape { dim: 1 dim: 6 dim: 4 dim: 4 }\n'
    with pytest.raises(IrpruneError, match=reason):
        imported(head + layer(kind, body))


@pytest.mark.parametrize("body", ["offset: 3", "offset: -1", "offset: [0, 0, 0]", "axis: 1"])
def test_crops_beyond_the_image(body: str) -> None:
    with pytest.raises(IrpruneError, match="cannot crop"):
        apply("Crop", f"crop_param {{ {body} }}", X, random(2, 7, 2, 3))

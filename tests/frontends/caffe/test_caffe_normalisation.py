"""BatchNorm and the Scale behind it, BN, LRN, MVN and Normalize against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from caffe_run import apply, apply_all, close, imported, random, run

from irprune.errors import IrpruneError

X = random(2, 6, 4, 4)


@pytest.mark.parametrize("factor", [1.0, 4.0, 0.5])
def test_batch_norm_divides_by_its_scale_factor(factor: float) -> None:
    mean, var = random(6, seed=1), np.abs(random(6, seed=2)) + 0.5
    blobs = [mean * factor, var * factor, np.array([factor], np.float32)]
    y = apply("BatchNorm", "batch_norm_param { eps: 0.01 }", X, blobs=blobs)
    shape = (1, 6, 1, 1)
    close(y, (X - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 0.01))


def test_batch_norm_with_a_zero_scale_factor() -> None:
    blobs = [random(6), np.abs(random(6)), np.zeros(1, np.float32)]
    close(apply("BatchNorm", "batch_norm_param { eps: 0.25 }", X, blobs=blobs), X / 0.5)


@pytest.mark.parametrize("place", ["bn", "scaled"])
@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("bias", ["true", "false"])
def test_scale_after_batch_norm(merge: bool, bias: str, place: str) -> None:
    text = f"""
        input: "x" input_shape {{ dim: 2 dim: 6 dim: 4 dim: 4 }}
        layer {{ name: "norm" type: "BatchNorm" bottom: "x" top: "bn" }}
        layer {{ name: "scale" type: "Scale" bottom: "bn" top: "{place}"
                scale_param {{ bias_term: {bias} }} }}"""
    weight, shift = random(6, seed=3), random(6, seed=4)
    blobs = [random(6, seed=1), np.abs(random(6, seed=2)), np.ones(1, np.float32)]
    affine = [weight, shift][: 2 if bias == "true" else 1]
    found = imported(text, {"norm": blobs, "scale": affine}, merge_scale=merge)
    ops = [node.op_type for node in found.model.ir.graph]
    assert ops == ["BatchNormalization", *([] if merge else ["Mul", "Add"][: len(affine)])]
    shape = (1, 6, 1, 1)
    expected = (X - blobs[0].reshape(shape)) / np.sqrt(blobs[1].reshape(shape) + 1e-5)
    expected = expected * weight.reshape(shape)
    expected = expected + (shift.reshape(shape) if bias == "true" else 0)
    y = run(found, {"x": X})
    assert [*y] == [place]
    close(y[place], expected)
    assert "scale.weight" in found.model.ir.graph.initializers


def test_scale_does_not_merge_where_the_normalised_blob_is_read_again() -> None:
    text = """
        input: "x" input_shape { dim: 2 dim: 6 dim: 4 dim: 4 }
        layer { name: "norm" type: "BatchNorm" bottom: "x" top: "bn" }
        layer { name: "scale" type: "Scale" bottom: "bn" top: "scaled" }
        layer { name: "sum" type: "Eltwise" bottom: "bn" bottom: "scaled" top: "y" }"""
    blobs = [np.zeros(6), np.ones(6), np.ones(1)]
    weights = {"norm": [b.astype(np.float32) for b in blobs], "scale": [random(6, seed=3)]}
    expected = X / np.sqrt(1 + 1e-5) * (1 + weights["scale"][0].reshape(1, 6, 1, 1))
    close(run(imported(text, weights), {"x": X})["y"], expected)


def test_lrn_across_channels() -> None:
    squares = np.pad(X**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = sum(squares[:, k : k + 6] for k in range(3))
    body = "lrn_param { local_size: 3 alpha: 0.6 beta: 0.75 k: 2 }"
    close(apply("LRN", body, X), X / (2 + 0.6 / 3 * total) ** 0.75)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_within_a_channel(size: int) -> None:
    pad = size // 2
    squares = np.pad(X**2, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    total = sum(squares[:, :, i : i + 4, j : j + 4] for i in range(size) for j in range(size))
    body = f"lrn_param {{ local_size: {size} alpha: 0.6 beta: 0.75 norm_region: WITHIN_CHANNEL }}"
    close(apply("LRN", body, X), X / (1 + 0.6 / size**2 * total) ** 0.75)


@pytest.mark.parametrize("shared", ["true", "false"])
@pytest.mark.parametrize(("across", "axes"), [("true", (1, 2, 3)), ("false", (1,))])
def test_normalize(across: str, axes: tuple[int, ...], shared: str) -> None:
    scale = random(1 if shared == "true" else 6, seed=1)
    norm = np.sqrt((X**2).sum(axes, keepdims=True) + 1e-10)
    body = f"norm_param {{ across_spatial: {across} channel_shared: {shared} }}"
    close(apply("Normalize", body, X, blobs=[scale]), X / norm * scale.reshape(1, -1, 1, 1))


def test_bn_of_forks() -> None:
    scale, shift, mean, var = (random(6, seed=k) for k in range(4))
    shape, var = (1, 6, 1, 1), np.abs(var)
    y = apply("BN", "", X, blobs=[scale, shift, mean, var])
    unit = (X - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5)
    close(y, unit * scale.reshape(shape) + shift.reshape(shape))
    y = apply("BN", "bn_param { bn_mode: INFERENCE }", X, blobs=[scale, shift])
    close(y, X * scale.reshape(shape) + shift.reshape(shape))


@pytest.mark.parametrize(("across", "axes"), [("true", (1, 2, 3)), ("false", (1,))])
def test_normalize_adds_eps_below_the_root(across: str, axes: tuple[int, ...]) -> None:
    body = f"norm_param {{ across_spatial: {across} eps: 3 }}"
    expected = X / np.sqrt((X**2).sum(axes, keepdims=True) + 3)
    close(apply("Normalize", body, X, blobs=[np.ones(1, np.float32)]), expected)


def test_batch_norm_of_forks_with_a_scale_of_its_own() -> None:
    mean, var, scale, shift = (random(6, seed=k) for k in range(4))
    blobs = [mean, np.abs(var), np.ones(1, np.float32), scale, shift]
    y = apply("BatchNorm", "batch_norm_param { scale_bias: true eps: 0.1 }", X, blobs=blobs)
    shape = (1, 6, 1, 1)
    unit = (X - mean.reshape(shape)) / np.sqrt(np.abs(var).reshape(shape) + 0.1)
    close(y, unit * scale.reshape(shape) + shift.reshape(shape))


def test_batch_norm_of_vectors() -> None:
    x, mean, var = random(5, 3), random(3, seed=1), np.abs(random(3, seed=2))
    blobs = [2 * mean, 2 * var, np.full(1, 2, np.float32)]
    close(apply("BatchNorm", "", x, blobs=blobs), (x - mean) / np.sqrt(var + 1e-5))


@pytest.mark.parametrize("numbers", ["alpha: 0", "alpha: -1", "beta: 0", "beta: nan"])
def test_lrn_across_channels_takes_positive_numbers(numbers: str) -> None:
    with pytest.raises(IrpruneError, match="alpha and beta must be positive"):
        apply("LRN", f"lrn_param {{ {numbers} }}", X)


def test_lrn_defaults() -> None:
    squares = np.pad(X**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
    total = sum(squares[:, k : k + 6] for k in range(5))
    close(apply("LRN", "", X), X / (1 + 1 / 5 * total) ** 0.75)


@pytest.mark.parametrize(
    ("across", "axes"),
    [("across_channels: true", (1, 2, 3)), ("across_channels: false", (2, 3)), ("", (2, 3))],
)
@pytest.mark.parametrize("eps", [None, 0.5])
def test_mvn(across: str, axes: tuple[int, ...], eps: float | None) -> None:
    centred = X - X.mean(axes, keepdims=True)
    body = f"{across} " + ("" if eps is None else f"eps: {eps}")
    deviation = X.std(axes, keepdims=True) + (1e-9 if eps is None else eps)
    close(apply("MVN", f"mvn_param {{ {body} }}", X), centred / deviation)
    body += " normalize_variance: false"
    close(apply("MVN", f"mvn_param {{ {body} }}", X), centred)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("BatchNorm", "", X / np.sqrt(1 + 1e-5)),
        ("BatchNorm", "batch_norm_param { scale_bias: true }", X / np.sqrt(1 + 1e-5)),
        (
            "BatchNorm",
            "batch_norm_param { scale_bias: true scale_filler { value: 2 } "
            "bias_filler { value: 3 } }",
            2 * X / np.sqrt(1 + 1e-5) + 3,
        ),
        ("BN", "", X / np.sqrt(1 + 1e-5)),
        ("BN", "bn_param { slope_filler { value: 2 } bias_filler { value: 3 } eps: 3 }", X + 3),
        ("BN", "bn_param { scale_filler { value: 2 } shift_filler { value: 3 } eps: 3 }", X + 3),
        ("Normalize", "", X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True))),
        (
            "Normalize",
            "norm_param { scale_filler { value: 20 } across_spatial: false channel_shared: false }",
            20 * X / np.sqrt((X**2).sum(1, keepdims=True)),
        ),
    ],
)
def test_without_weights_fillers_and_caffes_defaults_hold(
    kind: str, body: str, expected: np.ndarray
) -> None:
    close(apply(kind, body, X), expected)


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        ("BatchNorm", "", []),
        ("BatchNorm", "batch_norm_param { use_global_stats: true }", []),
        ("BatchNorm", "batch_norm_param { use_global_stats: false }", ["uses the stored stat"]),
        ("BN", "bn_param { bn_mode: INFERENCE }", []),
        ("BN", "bn_param { bn_mode: LEARN }", ["its bn_mode is LEARN"]),
    ],
)
def test_statistics_of_training_are_told(kind: str, body: str, said: list[str]) -> None:
    heard: list[str] = []
    apply_all(kind, body, X, warn=heard.append)
    assert len(heard) == len(said)
    assert all(f"it ({kind}), line 1: {one}" in line for one, line in zip(said, heard, strict=True))


@pytest.mark.parametrize(("factor", "told"), [(0.0, True), (1.0, False)])
def test_untrained_statistics_are_told(factor: float, told: bool) -> None:
    heard: list[str] = []
    blobs = [random(6), np.abs(random(6)) + 1, np.full(1, factor, np.float32)]
    apply_all("BatchNorm", "", X, blobs=blobs, warn=heard.append)
    assert any("its scale factor is 0" in line for line in heard) is told

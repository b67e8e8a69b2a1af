"""Each layer type against what Caffe computes, written in numpy."""

from __future__ import annotations

from collections.abc import Callable
from math import e

import numpy as np
import pytest
from caffe_run import apply, imported, random, run
from hypothesis import assume, given
from hypothesis import strategies as st

X = random(2, 6, 4, 4)
POSITIVE = np.abs(X) + 0.1


def close(y: np.ndarray, expected: np.ndarray) -> None:
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


ONE = [
    ("ReLU", "", lambda x: np.maximum(x, 0)),
    ("ReLU", "relu_param { negative_slope: 0.1 }", lambda x: np.where(x > 0, x, 0.1 * x)),
    ("ReLU6", "", lambda x: np.clip(x, 0, 6)),
    ("ELU", "elu_param { alpha: 0.5 }", lambda x: np.where(x > 0, x, 0.5 * (np.exp(x) - 1))),
    (
        "SeLu",
        "",
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    ),
    ("Sigmoid", "", lambda x: 1 / (1 + np.exp(-x))),
    ("TanH", "", np.tanh),
    ("AbsVal", "", np.abs),
    ("BNLL", "", lambda x: np.log(1 + np.exp(x))),
    ("Swish", "swish_param { beta: 2 }", lambda x: x / (1 + np.exp(-2 * x))),
    ("Clip", "clip_param { min: -0.5 max: 0.25 }", lambda x: np.clip(x, -0.5, 0.25)),
    ("Threshold", "threshold_param { threshold: 0.2 }", lambda x: (x > 0.2).astype(np.float32)),
    ("Power", "power_param { scale: 2 shift: 1 }", lambda x: 1 + 2 * x),
    ("Power", "power_param { scale: 2 shift: 1 power: 3 }", lambda x: (1 + 2 * x) ** 3),
    ("Exp", "", np.exp),
    ("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }", lambda x: 2 ** (1 + 0.5 * x)),
    ("Dropout", "dropout_param { scale_train: false dropout_ratio: 0.25 }", lambda x: 0.75 * x),
    ("Softmax", "", lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    (
        "Softmax",
        "softmax_param { axis: -1 }",
        lambda x: np.exp(x) / np.exp(x).sum(3, keepdims=True),
    ),
    ("Flatten", "", lambda x: x.reshape(2, -1)),
    ("Flatten", "flatten_param { axis: 1 end_axis: 2 }", lambda x: x.reshape(2, 24, 4)),
    ("Flatten", "flatten_param { axis: 0 end_axis: 1 }", lambda x: x.reshape(12, 4, 4)),
    ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }", lambda x: x.reshape(2, -1, 2)),
    (
        "Reshape",
        "reshape_param { axis: 1 num_axes: 1 shape { dim: 2 dim: 3 } }",
        lambda x: x.reshape(2, 2, 3, 4, 4),
    ),
    (
        "Reshape",
        "reshape_param { axis: -1 num_axes: 0 shape { dim: 1 } }",
        lambda x: x.reshape(2, 6, 4, 4, 1),
    ),
    ("Permute", "permute_param { order: 0 order: 2 }", lambda x: x.transpose(0, 2, 1, 3)),
    ("Tile", "tile_param { axis: 2 tiles: 3 }", lambda x: np.tile(x, (1, 1, 3, 1))),
    (
        "ShuffleChannel",
        "shuffle_channel_param { group: 3 }",
        lambda x: x.reshape(2, 3, 2, 4, 4).swapaxes(1, 2).reshape(x.shape),
    ),
    ("Filter", "filter_param { num_output: 2 }", lambda x: x[:, :2]),
    ("Reduction", "", lambda x: x.sum()),
    (
        "Reduction",
        "reduction_param { operation: ASUM axis: 1 }",
        lambda x: np.abs(x).sum((1, 2, 3)),
    ),
    (
        "Reduction",
        "reduction_param { operation: SUMSQ axis: 2 coeff: 3 }",
        lambda x: 3 * (x**2).sum((2, 3)),
    ),
    ("Reduction", "reduction_param { operation: MEAN axis: -1 }", lambda x: x.mean(3)),
    ("ArgMax", "", lambda x: x.reshape(2, 1, -1).argmax(2)[..., None].astype(np.float32)),
    ("ArgMax", "argmax_param { axis: 1 }", lambda x: x.argmax(1)[:, None].astype(np.float32)),
    ("ArgMax", "argmax_param { axis: 2 out_max_val: true }", lambda x: x.max(2, keepdims=True)),
    (
        "ArgMax",
        "argmax_param { top_k: 3 out_max_val: true }",
        lambda x: np.stack(
            [np.argsort(-x.reshape(2, -1))[:, :3], -np.sort(-x.reshape(2, -1))[:, :3]], 1
        ),
    ),
    (
        "MVN",
        "",
        lambda x: (x - x.mean((2, 3), keepdims=True)) / (x.std((2, 3), keepdims=True) + 1e-9),
    ),
    (
        "MVN",
        "mvn_param { across_channels: true eps: 0.5 }",
        lambda x: (x - x.mean((1, 2, 3), keepdims=True)) / (x.std((1, 2, 3), keepdims=True) + 0.5),
    ),
    ("MVN", "mvn_param { normalize_variance: false }", lambda x: x - x.mean((2, 3), keepdims=True)),
    ("Upsample", "upsample_param { scale: 2 }", lambda x: x.repeat(2, 2).repeat(2, 3)),
    ("Slice", "slice_param { slice_point: 2 axis: 1 } top: 'y1'", lambda x: x[:, :2]),
    ("Slice", "slice_param { slice_dim: 0 } top: 'y1'", lambda x: x[:1]),
]


@pytest.mark.parametrize(("kind", "body", "expected"), ONE)
def test_one_bottom(kind: str, body: str, expected: Callable[[np.ndarray], np.ndarray]) -> None:
    close(apply(kind, body, X), np.asarray(expected(X)))


@pytest.mark.parametrize(("base", "rate"), [("-1", 1.0), ("10", np.log(10)), (repr(e), 1.0)])
def test_logarithms(base: str, rate: float) -> None:
    body = f"log_param {{ base: {base} scale: 2 shift: 1 }}"
    close(apply("Log", body, POSITIVE), np.log(1 + 2 * POSITIVE) / rate)


def test_argmax_takes_the_last_of_equals() -> None:
    x = np.array([[1, 3, 3, 0]], np.float32)
    assert apply("ArgMax", "", x).item() == 2


@pytest.mark.parametrize(
    ("shared", "slopes"), [("true", [0.2]), ("false", [0.1, 0.2, 0.3, 0, 1, 2])]
)
def test_prelu(shared: str, slopes: list[float]) -> None:
    blob = np.array(slopes, np.float32)
    y = apply("PReLU", f"prelu_param {{ channel_shared: {shared} }}", X, blobs=[blob])
    close(y, np.where(X > 0, X, X * blob.reshape(1, -1, 1, 1)))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", lambda a, b, c: a + b + c),
        (
            "eltwise_param { operation: SUM coeff: 1 coeff: -2 coeff: 0.5 }",
            lambda a, b, c: a - 2 * b + 0.5 * c,
        ),
        ("eltwise_param { operation: PROD }", lambda a, b, c: a * b * c),
        ("eltwise_param { operation: MAX }", lambda a, b, c: np.maximum(np.maximum(a, b), c)),
    ],
)
def test_eltwise(body: str, expected: Callable[..., np.ndarray]) -> None:
    xs = [random(2, 3, 4, seed=seed) for seed in range(3)]
    close(apply("Eltwise", body, *xs), expected(*xs))


def test_eltwise_difference() -> None:
    a, b = random(2, 3), random(2, 3, seed=1)
    close(apply("Eltwise", "eltwise_param { coeff: 1 coeff: -1 }", a, b), a - b)


@given(
    st.sampled_from([1, 2]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 1),
    st.integers(1, 2),
)
def test_deconvolution(group: int, kernel: int, stride: int, pad: int, dilation: int) -> None:
    assume(pad < kernel)
    x, weight, bias = random(1, 4, 3, 5), random(4, 3, kernel, kernel, seed=1), random(3 * group)
    reach = dilation * (kernel - 1) + 1
    full = np.zeros((1, 3 * group, *(stride * (n - 1) + reach for n in x.shape[2:])))
    for c in range(4):
        part = slice(3 * (c // (4 // group)), 3 * (c // (4 // group)) + 3)
        for i in range(3):
            for j in range(5):
                rows = slice(i * stride, i * stride + reach, dilation)
                columns = slice(j * stride, j * stride + reach, dilation)
                full[0, part, rows, columns] += x[0, c, i, j] * weight[c]
    expected = full[:, :, pad : full.shape[2] - pad, pad : full.shape[3] - pad]
    assume(min(expected.shape) > 0)
    body = (
        f"convolution_param {{ num_output: {3 * group} kernel_size: {kernel} stride: {stride} "
        f"pad: {pad} group: {group} dilation: {dilation} }}"
    )
    y = apply("Deconvolution", body, x, blobs=[weight, bias])
    close(y, expected + bias.reshape(1, -1, 1, 1))


@pytest.mark.parametrize("kind", ["Convolution", "DepthwiseConvolution", "ConvolutionDepthwise"])
def test_depthwise_convolution(kind: str) -> None:
    weight = random(6, 1, 1, 1, seed=1)
    body = "convolution_param { num_output: 6 kernel_size: 1 bias_term: false group: 6 }"
    close(apply(kind, body, X, blobs=[weight]), X * weight.reshape(1, 6, 1, 1))


def test_convolution_of_one_spatial_axis_and_legacy_blobs() -> None:
    x, weight = random(2, 3, 8), random(4, 3, 2, seed=1)
    body = "convolution_param { num_output: 4 kernel_size: 2 stride: 2 }"
    bias = random(1, 1, 1, 4, seed=2)
    expected = np.einsum("ncsk,mck->nms", x.reshape(2, 3, 4, 2), weight) + bias.reshape(4, 1)
    close(apply("Convolution", body, x, blobs=[weight, bias]), expected)


@pytest.mark.parametrize("transpose", ["true", "false"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_inner_product(axis: int, transpose: str) -> None:
    split = axis % 4
    flat = X.reshape(*X.shape[:split], -1)
    weight, bias = random(5, flat.shape[-1], seed=1), random(5, seed=2)
    stored = weight.T if transpose == "true" else weight
    body = f"inner_product_param {{ num_output: 5 axis: {axis} transpose: {transpose} }}"
    y = apply("InnerProduct", body, X, blobs=[np.ascontiguousarray(stored), bias])
    close(y, flat @ weight.T + bias)


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


@pytest.mark.parametrize(("axis", "axes"), [(0, 2), (1, 1), (1, 2), (2, -1), (0, 0)])
def test_scale_and_bias_span_axes(axis: int, axes: int) -> None:
    spans = X.shape[axis:] if axes == -1 else X.shape[axis : axis + axes]
    weight, shift = random(*spans, seed=1), random(*spans, seed=2)
    shape = (*[1] * axis, *spans, *[1] * (4 - axis - len(spans)))
    body = f"axis: {axis} num_axes: {axes}"
    y = apply("Scale", f"scale_param {{ {body} bias_term: true }}", X, blobs=[weight, shift])
    close(y, X * weight.reshape(shape) + shift.reshape(shape))
    y = apply("Bias", f"bias_param {{ {body} }}", X, blobs=[shift])
    close(y, X + shift.reshape(shape))


@pytest.mark.parametrize(("axis", "shape"), [(0, (2, 6)), (1, (6, 4)), (0, (2, 6, 4, 4))])
def test_scale_and_bias_by_a_second_bottom(axis: int, shape: tuple[int, ...]) -> None:
    other = random(*shape, seed=1)
    aligned = other.reshape(*[1] * axis, *shape, *[1] * (4 - axis - len(shape)))
    close(apply("Scale", f"scale_param {{ axis: {axis} }}", X, other), X * aligned)
    close(apply("Bias", f"bias_param {{ axis: {axis} }}", X, other), X + aligned)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 1, 1)])
def test_axpy(shape: tuple[int, ...]) -> None:
    a, y = random(*shape, seed=1), random(2, 6, 4, 4, seed=2)
    close(apply("Axpy", "", a, X, y), a.reshape(2, 6, 1, 1) * X + y)


def test_lrn_across_channels() -> None:
    squares = np.pad(X**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = sum(squares[:, k : k + 6] for k in range(3))
    body = "lrn_param { local_size: 3 alpha: 0.6 beta: 0.75 k: 2 }"
    close(apply("LRN", body, X), X / (2 + 0.6 / 3 * total) ** 0.75)


def test_lrn_within_a_channel() -> None:
    squares = np.pad(X**2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    total = sum(squares[:, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3))
    body = "lrn_param { local_size: 3 alpha: 0.6 beta: 0.75 norm_region: WITHIN_CHANNEL }"
    close(apply("LRN", body, X), X / (1 + 0.6 / 9 * total) ** 0.75)


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


def test_reorg_as_darknet_has_it() -> None:
    x = random(2, 8, 4, 6)
    flat, y = x.reshape(2, -1), np.zeros((2, 8 * 4 * 6), np.float32)
    for c in range(8):
        for j in range(4):
            for i in range(6):
                offset = c // 2
                column, row = i * 2 + offset % 2, j * 2 + offset // 2
                y[:, i + 6 * (j + 4 * c)] = flat[:, column + 12 * (row + 8 * (c % 2))]
    close(apply("Reorg", "reorg_param { stride: 2 }", x), y.reshape(2, 32, 2, 3))


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


@pytest.mark.parametrize("blob", [[0, 1, 0, 0, 1, 0], [1, 4]])
def test_filter_by_mask_or_indices(blob: list[int]) -> None:
    y = apply("Filter", "filter_param { num_output: 2 }", X, blobs=[np.array(blob, np.float32)])
    close(y, X[:, [1, 4]])

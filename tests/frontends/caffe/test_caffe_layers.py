"""Each layer type against what Caffe computes, written in numpy."""

from __future__ import annotations

from collections.abc import Callable
from math import e

import numpy as np
import pytest
from caffe_run import apply, close, imported, layer, random, run

from irprune.errors import IrpruneError

X = random(2, 6, 4, 4)
POSITIVE = np.abs(X) + 0.1


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
    ("Swish", "", lambda x: x / (1 + np.exp(-x))),
    ("Swish", "swish_param { beta: 2 }", lambda x: x / (1 + np.exp(-2 * x))),
    ("Clip", "clip_param { min: -0.5 max: 0.25 }", lambda x: np.clip(x, -0.5, 0.25)),
    ("Threshold", "threshold_param { threshold: 0.2 }", lambda x: (x > 0.2).astype(np.float32)),
    ("Threshold", "", lambda x: (x > 0).astype(np.float32)),
    (
        "SELU",
        "selu_param { alpha: 2 lambda: 3 }",
        lambda x: 3 * np.where(x > 0, x, 2 * np.expm1(x)),
    ),
    ("ELU", "", lambda x: np.where(x > 0, x, np.expm1(x))),
    ("Power", "power_param { power: 2 }", lambda x: x**2),
    ("Power", "power_param { shift: 1 }", lambda x: x + 1),
    ("Power", "power_param { scale: 2 shift: 1 }", lambda x: 1 + 2 * x),
    ("Power", "power_param { scale: 2 shift: 1 power: 3 }", lambda x: (1 + 2 * x) ** 3),
    ("Exp", "", np.exp),
    ("Exp", "exp_param { scale: 0.5 shift: 1 }", lambda x: np.exp(1 + 0.5 * x)),
    ("Exp", "exp_param { base: 3 }", lambda x: 3**x),
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
    ("Tile", "tile_param { tiles: 1 }", lambda x: x),
    ("Tile", "tile_param { axis: 2 tiles: 3 }", lambda x: np.tile(x, (1, 1, 3, 1))),
    ("Reduction", "", lambda x: x.sum()),
    ("Reduction", "reduction_param { axis: 3 coeff: -2 }", lambda x: -2 * x.sum(3)),
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
    (
        "ArgMax",
        "argmax_param { top_k: 2 }",
        lambda x: np.argsort(-x.reshape(2, 1, -1))[..., :2].astype(np.float32),
    ),
    (
        "ArgMax",
        "argmax_param { top_k: 2 axis: -3 }",
        lambda x: np.argsort(-x, 1)[:, :2].astype(np.float32),
    ),
    (
        "ArgMax",
        "argmax_param { top_k: 2 axis: 3 out_max_val: true }",
        lambda x: -np.sort(-x, 3)[..., :2],
    ),
    (
        "ArgMax",
        "argmax_param { out_max_val: true }",
        lambda x: np.stack([x.reshape(2, -1).argmax(1), x.reshape(2, -1).max(1)], 1)[..., None],
    ),
    ("ArgMax", "argmax_param { axis: 2 out_max_val: true }", lambda x: x.max(2, keepdims=True)),
    (
        "ArgMax",
        "argmax_param { top_k: 3 out_max_val: true }",
        lambda x: np.stack(
            [np.argsort(-x.reshape(2, -1))[:, :3], -np.sort(-x.reshape(2, -1))[:, :3]], 1
        ),
    ),
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


@pytest.mark.parametrize(("first", "second"), [(1, -1), (-1, 1), (2, -0.5), (1, 1)])
def test_eltwise_with_two_coefficients(first: float, second: float) -> None:
    a, b = random(2, 3), random(2, 3, seed=1)
    body = f"eltwise_param {{ coeff: {first} coeff: {second} }}"
    close(apply("Eltwise", body, a, b), first * a + second * b)


@pytest.mark.parametrize("kind", ["PROD", "SUM", "MAX"])
def test_eltwise_of_one_blob_with_itself(kind: str) -> None:
    text = f"""input: "x" input_shape {{ dim: 2 dim: 3 }}
        layer {{ name: "it" type: "Eltwise" bottom: "x" bottom: "x" top: "y"
                eltwise_param {{ operation: {kind} }} }}"""
    x = random(2, 3)
    expected = {"PROD": x * x, "SUM": x + x, "MAX": x}[kind]
    close(run(imported(text), {"x": x})["y"], expected)


def test_threshold_is_strict() -> None:
    x = np.array([[0.5, 1, 1.5]], np.float32)
    close(apply("Threshold", "threshold_param { threshold: 1 }", x), np.float32([[0, 0, 1]]))


@pytest.mark.parametrize(("axis", "axes"), [(0, 2), (1, 1), (1, 2), (2, -1), (0, 0), (4, 0)])
def test_scale_and_bias_span_axes(axis: int, axes: int) -> None:
    spans = X.shape[axis:] if axes == -1 else X.shape[axis : axis + axes]
    weight, shift = random(*spans, seed=1), random(*spans, seed=2)
    shape = (*[1] * axis, *spans, *[1] * (4 - axis - len(spans)))
    body = f"axis: {axis} num_axes: {axes}"
    y = apply("Scale", f"scale_param {{ {body} bias_term: true }}", X, blobs=[weight, shift])
    close(y, X * weight.reshape(shape) + shift.reshape(shape))
    y = apply("Bias", f"bias_param {{ {body} }}", X, blobs=[shift])
    close(y, X + shift.reshape(shape))


@pytest.mark.parametrize(("axis", "shape"), [(0, (2, 6)), (1, (6, 4)), (0, (2, 6, 4, 4)), (1, ())])
def test_scale_and_bias_by_a_second_bottom(axis: int, shape: tuple[int, ...]) -> None:
    other = random(*shape, seed=1)
    aligned = other.reshape(*[1] * axis, *shape, *[1] * (4 - axis - len(shape)))
    close(apply("Scale", f"scale_param {{ axis: {axis} }}", X, other), X * aligned)
    close(apply("Bias", f"bias_param {{ axis: {axis} }}", X, other), X + aligned)
    shift = random(*shape, seed=2)
    body = f"scale_param {{ axis: {axis} bias_term: true }}"
    close(apply("Scale", body, X, other, blobs=[shift]), X * aligned + shift.reshape(aligned.shape))


def test_scale_and_bias_take_the_channels_where_nothing_is_said() -> None:
    weight, shift = random(6, seed=1), random(6, seed=2)
    close(apply("Scale", "", X, blobs=[weight]), X * weight.reshape(6, 1, 1))
    close(apply("Bias", "", X, blobs=[shift]), X + shift.reshape(6, 1, 1))
    close(apply("Scale", "scale_param { bias_term: true }", X), X)
    close(apply("Scale", "scale_param { filler { value: 3 } }", X), 3 * X)


@pytest.mark.parametrize(
    ("kind", "shape", "reason"),
    [
        ("Eltwise", (2, 6, 4), r"one shape, they have \[2, 6, 4, 4\], \[2, 6, 4\]"),
        ("Scale", (4, 6), r"cannot align \[4, 6\] with \[2, 6, 4, 4\] from axis 1 on"),
    ],
)
def test_blobs_that_do_not_fit_together(kind: str, shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(IrpruneError, match=reason):
        apply(kind, "", X, random(*shape))


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 1, 1)])
def test_axpy(shape: tuple[int, ...]) -> None:
    a, y = random(*shape, seed=1), random(2, 6, 4, 4, seed=2)
    close(apply("Axpy", "", a, X, y), a.reshape(2, 6, 1, 1) * X + y)


@pytest.mark.parametrize(
    ("kind", "body", "bottoms", "reason"),
    [
        ("Eltwise", "", 1, "takes at least 2 bottoms, has 1"),
        ("Eltwise", "eltwise_param { operation: PROD coeff: 1 coeff: 2 }", 2, "go with SUM"),
        ("Eltwise", "eltwise_param { coeff: 1 }", 2, "has 2 bottoms and 1 coefficients"),
        ("Exp", "exp_param { base: 0 }", 1, "base must be -1"),
        ("Log", "log_param { base: 1 }", 1, "base must be -1"),
        ("Clip", "clip_param { min: 1 }", 1, "`max` is missing"),
        ("Flatten", "flatten_param { axis: 2 end_axis: 1 }", 1, "end_axis 1 stands before axis 2"),
        ("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }", 1, "only one dim can be -1"),
        ("Reshape", "reshape_param { shape { dim: 5 } }", 1, r"cannot make \[5\] of \[2, 3, 4\]"),
        ("Reshape", "reshape_param { shape { dim: 7 dim: -1 } }", 1, "cannot make"),
        ("Reshape", "reshape_param { axis: 2 num_axes: 2 }", 1, "has no 2 axes from axis 2 on"),
        (
            "Reshape",
            "reshape_param { axis: 3 shape { dim: 0 } }",
            1,
            "dim 0 cannot stand on axis 3",
        ),
        ("Scale", "scale_param { num_axes: 3 }", 1, "has no 3 axes from axis 1 on"),
        ("Scale", "scale_param { axis: 0 }", 3, "takes 1 to 2 bottoms, has 3"),
        ("Bias", "bias_param { axis: 1 }", 2, "cannot align"),
        ("Bias", "", 3, "takes 1 to 2 bottoms, has 3"),
        ("Axpy", "", 2, "takes 3 bottoms, has 2"),
        ("Axpy", "", 3, r"takes \(N, C, 1, 1\)"),
        ("ArgMax", "argmax_param { top_k: 13 }", 1, "top_k must be 1 to 12"),
        ("ArgMax", "argmax_param { top_k: 4 axis: 1 }", 1, "top_k must be 1 to 3"),
        ("InnerProduct", "inner_product_param { num_output: 0 }", 1, "num_output cannot be 0"),
        ("LRN", "lrn_param { local_size: 4 }", 1, "local_size must be odd"),
        ("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }", 1, "needs a bottom of 4 axes"),
        ("Pooling", "pooling_param { kernel_size: 2 }", 1, "needs a bottom of 4 axes"),
    ],
)
def test_bad_layers(kind: str, body: str, bottoms: int, reason: str) -> None:
    inputs = "".join(
        f'input: "x{k}" input_shape {{ dim: 2 dim: 3 dim: 4 }} ' for k in range(bottoms)
    )
    with pytest.raises(IrpruneError, match=reason) as caught:
        imported(inputs + "\n" + layer(kind, body, bottoms))
    assert str(caught.value).startswith("net.prototxt:2:")

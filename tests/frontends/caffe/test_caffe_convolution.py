"""Convolution, Deconvolution and InnerProduct against loops and matrices in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from caffe_run import apply, apply_all, close, imported, layer, random, run
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError

X = random(2, 6, 4, 4)


@dataclass(frozen=True)
class Window:
    """How a kernel moves along one axis."""

    kernel: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        return self.dilation * (self.kernel - 1) + 1

    def outputs(self, size: int) -> int:
        return (size + 2 * self.pad - self.reach) // self.stride + 1

    def under(self, tap: int, count: int) -> slice:
        """Where in the padded image a tap of the kernel lies as it moves `count` times."""
        start = tap * self.dilation
        return slice(start, start + self.stride * (count - 1) + 1, self.stride)


def convolved(
    x: np.ndarray, weight: np.ndarray, windows: Sequence[Window], group: int = 1
) -> np.ndarray:
    """Caffe's convolution of x `(N, C, *spatial)` by weight `(M, C / group, *kernel)`."""
    padded = np.pad(x, [(0, 0), (0, 0), *((w.pad, w.pad) for w in windows)]).astype(np.float64)
    counts = [w.outputs(size) for w, size in zip(windows, x.shape[2:], strict=True)]
    y = np.zeros((len(x), len(weight), *counts))
    for taps in np.ndindex(*weight.shape[2:]):
        under = [w.under(tap, n) for w, tap, n in zip(windows, taps, counts, strict=True)]
        for part in range(group):
            ins = np.s_[part * weight.shape[1] : (part + 1) * weight.shape[1]]
            outs = np.s_[part * len(weight) // group : (part + 1) * len(weight) // group]
            kernel = weight[(outs, slice(None), *taps)]
            y[:, outs] += np.einsum("nc...,mc->nm...", padded[(slice(None), ins, *under)], kernel)
    return y


def deconvolved(
    x: np.ndarray, weight: np.ndarray, windows: Sequence[Window], group: int = 1
) -> np.ndarray:
    """Caffe's deconvolution of x `(N, C, *spatial)` by weight `(C, M / group, *kernel)`."""
    sizes = [w.stride * (n - 1) + w.reach for w, n in zip(windows, x.shape[2:], strict=True)]
    full = np.zeros((len(x), group * weight.shape[1], *sizes))
    for taps in np.ndindex(*weight.shape[2:]):
        under = [w.under(tap, n) for w, tap, n in zip(windows, taps, x.shape[2:], strict=True)]
        for part in range(group):
            ins = np.s_[part * len(weight) // group : (part + 1) * len(weight) // group]
            outs = np.s_[part * weight.shape[1] : (part + 1) * weight.shape[1]]
            kernel = weight[(ins, slice(None), *taps)]
            full[(slice(None), outs, *under)] += np.einsum("nc...,cm->nm...", x[:, ins], kernel)
    inner = [slice(w.pad, n - w.pad) for w, n in zip(windows, sizes, strict=True)]
    return full[(slice(None), slice(None), *inner)]


WINDOW = st.builds(
    Window, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)
)


@st.composite
def spelled(draw: st.DrawFn, rank: int) -> tuple[list[Window], str]:
    """Windows along `rank` axes and one of the ways in which a file may spell them."""
    windows = draw(st.lists(WINDOW, min_size=rank, max_size=rank))
    if draw(st.booleans()):
        windows = [windows[0]] * rank
    words = []
    for field, stem in (("kernel", "kernel_size"), ("stride", "stride"), ("pad", "pad")):
        numbers = [getattr(w, field) for w in windows]
        if rank == 2 and draw(st.booleans()):
            words += [f"{field}_{axis}: {n}" for axis, n in zip("hw", numbers, strict=True)]
        else:
            each = len({*numbers}) > 1 or draw(st.booleans())
            words += [f"{stem}: {n}" for n in (numbers if each else numbers[:1])]
    words += [f"dilation: {w.dilation}" for w in windows]
    return windows, " ".join(words)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@given(data=st.data(), group=st.sampled_from([1, 2]))
def test_every_spelling_of_windows(kind: str, rank: int, data: st.DataObject, group: int) -> None:
    windows, words = data.draw(spelled(rank))
    x = random(2, 4, *(5, 6, 7)[:rank])
    kernel = [w.kernel for w in windows]
    bias = random(2 * group, seed=2)
    ends, reference = (
        ((2 * group, 4 // group), convolved)
        if kind == "Convolution"
        else (
            (4, 2),
            deconvolved,
        )
    )
    weight = random(*ends, *kernel, seed=1)
    body = f"convolution_param {{ num_output: {2 * group} group: {group} {words} }}"
    sizes = x.shape[2:]
    if kind == "Convolution":
        fits = all(w.outputs(n) > 0 for w, n in zip(windows, sizes, strict=True))
    else:
        lengths = [w.stride * (n - 1) + w.reach for w, n in zip(windows, sizes, strict=True)]
        fits = all(n > 2 * w.pad for w, n in zip(windows, lengths, strict=True))
    if not fits:
        with pytest.raises(IrpruneError, match="layer it"):
            apply(kind, body, x, blobs=[weight, bias])
        return
    expected = reference(x, weight, windows, group) + bias.reshape(-1, *[1] * rank)
    close(apply(kind, body, x, blobs=[weight, bias]), expected)


@pytest.mark.parametrize("kind", ["DepthwiseConvolution", "ConvolutionDepthwise"])
@pytest.mark.parametrize("outputs", [6, 12])
def test_depthwise_convolution_has_a_group_per_channel(kind: str, outputs: int) -> None:
    weight, bias = random(outputs, 1, 3, 3, seed=1), random(outputs, seed=2)
    body = f"convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 }}"
    expected = convolved(X, weight, [Window(3, pad=1)] * 2, 6) + bias.reshape(-1, 1, 1)
    close(apply(kind, body, X, blobs=[weight, bias]), expected)


def test_convolution_without_bias_and_with_legacy_blobs() -> None:
    weight, bias = random(4, 6, 1, 1, seed=1), random(1, 1, 1, 4, seed=2)
    expected = convolved(X, weight, [Window(1)] * 2)
    body = "num_output: 4 kernel_size: 1"
    y = apply("Convolution", f"convolution_param {{ {body} bias_term: false }}", X, blobs=[weight])
    close(y, expected)
    y = apply("Convolution", f"convolution_param {{ {body} }}", X, blobs=[weight, bias])
    close(y, expected + bias.reshape(4, 1, 1))


def test_convolution_of_several_blobs() -> None:
    weight = random(4, 6, 3, 3, seed=1)
    body = "convolution_param { num_output: 4 kernel_size: 3 bias_term: false }"
    one, two = apply_all("Convolution", body, X, 2 * X, blobs=[weight], tops=2)
    close(one, convolved(X, weight, [Window(3)] * 2))
    close(two, 2 * one)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "num_output: 4 kernel_size: 3 kernel_h: 3 kernel_w: 3",
            "kernel_h and kernel_w stand alone",
        ),
        ("num_output: 4 kernel_h: 3", "kernel cannot be 3 x 0"),
        ("num_output: 4", "needs kernel_size once or 2 times, has it 0 times"),
        ("num_output: 4 kernel_size: [3, 3, 3]", "has it 3 times"),
        (
            "num_output: 4 kernel_size: 2 pad: 3 dilation: 14",
            "15 x 15 does not fit",
        ),
        ("num_output: 4 kernel_h: 9 kernel_w: 1", "9 x 1 does not fit an image of 8 x 8"),
        ("num_output: 4 kernel_size: 3 stride: 0", "stride cannot be 0"),
        ("num_output: 4 kernel_size: 3 pad: -1", "pad cannot be -1"),
        ("num_output: 4 kernel_size: 3 axis: 2", "channels are supported on axis 1 only"),
        ("num_output: 0 kernel_size: 3", "6 channels, 0 outputs and group 1 do not fit"),
        ("num_output: 4 kernel_size: 3 group: 4", "6 channels, 4 outputs and group 4 do not fit"),
        ("num_output: 4 kernel_size: 3 group: 3", "6 channels, 4 outputs and group 3 do not fit"),
        ("num_output: 4 kernel_size: 3 group: 0", "group 0 do not fit"),
    ],
)
def test_bad_windows(body: str, reason: str) -> None:
    head = 'input: "x0" input_shape { dim: 1 dim: 6 dim: 8 dim: 8 }\n'
    with pytest.raises(IrpruneError, match=reason):
        imported(head + layer("Convolution", f"convolution_param {{ {body} }}"))


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


def test_inner_product_without_bias() -> None:
    weight = random(5, 96, seed=1)
    body = "inner_product_param { num_output: 5 bias_term: false }"
    close(apply("InnerProduct", body, X, blobs=[weight]), X.reshape(2, -1) @ weight.T)


SHARING = """input: "a" input: "b" input_shape { dim: 2 dim: 3 } input_shape { dim: 2 dim: 3 }
layer { name: "one" type: "InnerProduct" bottom: "a" top: "y"
        param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 3 } }
layer { name: "two" type: "InnerProduct" bottom: "b" top: "z" param { name: "w" } param {}
        inner_product_param { num_output: 3 } }
layer { name: "sum" type: "Bias" bottom: "z" top: "s" param { name: "c" } }
"""


def test_loaded_parameters_shared_by_name() -> None:
    weight, shift, own = random(3, 3), random(3, seed=1), random(3, seed=2)
    stored = {"one": [weight, shift], "two": [weight, own], "sum": [shift]}
    found = imported(SHARING, stored)
    names = ["one.weight", "one.bias", "two.bias"]
    assert [*found.model.ir.graph.initializers] == names
    a, b = random(2, 3, seed=3), random(2, 3, seed=4)
    y = run(found, {"a": a, "b": b})
    close(y["y"], a @ weight.T + shift)
    close(y["s"], b @ weight.T + own + shift)

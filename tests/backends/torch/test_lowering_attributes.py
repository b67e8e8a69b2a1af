"""Attributes and optional inputs that change what an op computes, each against onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lowered import lowered_outputs
from strategies import Net, feeds_of, relative_error, run

from irprune.backends.torch import to_torch
from irprune.errors import IrpruneError
from irprune.model import Model

Build = Callable[[Net], str]
FLOAT, INT64 = 1, 7


def _x(net: Net) -> str:
    return net.input(2, 4, 6, 6)


def _number(net: Net, value: float | int) -> str:
    return net.constant(np.array(value, np.int64 if isinstance(value, int) else np.float32))


def _computed(net: Net, *shape: int) -> str:
    """A weight that the graph computes: no layer can hold it."""
    return net.op("Mul", net.weight(*shape), net.input(1, name="s"))


def _float(net: Net, x: str) -> str:
    return net.op("Cast", x, to=FLOAT)


def _each(
    kind: str, given: Callable[[Net], Sequence[str]], *settings: dict[str, Any]
) -> list[Build]:
    """The op with each of several settings."""

    def build(setting: dict[str, Any]) -> Build:
        return lambda net: net.op(kind, *given(net), **setting)

    return [build(setting) for setting in settings]


def _image(net: Net) -> list[str]:
    return [_x(net)]


def _pools(kind: str, *settings: dict[str, Any]) -> list[Build]:
    """On odd windows and steps; ends that differ, and pads wider than half a window."""
    window = {"kernel_shape": [3, 2], "strides": [2, 1]}
    return _each(kind, _image, *(window | setting for setting in settings))


_PADS = ([0, 1, 1, 0], [1, 1, 2, 1], [2, 1, 2, 1], [0, 0, 1, 1], [0, 0, 2, 1])
_ENDS = [
    {"pads": pads, "ceil_mode": ceil, "count_include_pad": counted}
    for pads in _PADS
    for ceil in (0, 1)
    for counted in (0, 1)
]
_AUTOMATIC = [
    {"auto_pad": kind, "count_include_pad": counted}
    for kind in ("SAME_UPPER", "SAME_LOWER", "VALID")
    for counted in (0, 1)
]
_POWERS = [
    {"p": p, "pads": pads, "ceil_mode": ceil}
    for p in (1, 2, 3)
    for pads in _PADS[1:3]
    for ceil in (0, 1)
]
_LONGER = [
    {"output_shape": size, "auto_pad": kind}
    for size in ([12, 13], [11, 10], [10, 11])
    for kind in ("NOTSET", "SAME_UPPER", "SAME_LOWER")
]
_TRANSPOSED = [
    *_LONGER,
    *({"auto_pad": kind} for kind in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    {"output_padding": [1, 0]},
    {"dilations": [2, 1], "auto_pad": "SAME_UPPER"},
]


def _transposed_inputs(net: Net) -> list[str]:
    return [_x(net), net.weight(4, 3, 3, 2), net.weight(3)]


def _one_hot(axis: int, negative: bool) -> Build:
    def build(net: Net) -> str:
        places = net.op("ArgMax", _x(net), axis=1, keepdims=0)
        if negative:
            places = net.op("Sub", places, net.ints(4))
        values = net.constant(np.array([0.1, 0.7], np.float32))
        return net.op("OneHot", places, net.ints(4), values, axis=axis)

    return build


def _unpooled(net: Net) -> str:
    names = ["m", "i"]
    window = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return net.op("MaxUnpool", *net.split("MaxPool", _x(net), names=names, **window), **window)


def _places(pads: list[int]) -> Build:
    def build(net: Net) -> str:
        window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": pads}
        largest, places = net.split("MaxPool", _x(net), names=["m", "i"], **window)
        return net.op("Add", largest, _float(net, places))

    return build


def _suppressed(centred: int, bounded: bool) -> Build:
    def build(net: Net) -> str:
        boxes = net.op("Abs", net.input(2, 8, 4, name="b"))
        scores = net.op("Sigmoid", net.input(2, 3, 8, name="s"))
        least = [_number(net, 0.4)] if bounded else []
        limits = [_number(net, 3), _number(net, 0.3), *least]
        kind = "NonMaxSuppression"
        return _float(net, net.op(kind, boxes, scores, *limits, center_point_box=centred))

    return build


def _regions(ratio: int, form: str) -> Build:
    def build(net: Net) -> str:
        corners = net.constant(np.array([1, 1, 4, 4], np.float32))
        rois = net.op("Mul", net.op("Abs", net.input(3, 4, name="r")), corners)
        return net.op(
            "RoiAlign", _x(net), rois, net.ints(0, 1, 1), output_height=2, output_width=3,
            spatial_scale=0.8, sampling_ratio=ratio, coordinate_transformation_mode=form,
        )  # fmt: skip

    return build


def _integers(kind: str, divisor: int, **attributes: int) -> Build:
    def build(net: Net) -> str:
        many = net.op("Cast", net.op("Mul", _x(net), _number(net, 9.0)), to=INT64)
        return _float(net, net.op(kind, many, net.ints(divisor), **attributes))

    return build


def _clipped(*limits: str) -> Build:
    def build(net: Net) -> str:
        few = net.op("Mul", net.input(3, name="z"), _number(net, 0.1))
        made = [limit and net.op(limit, few, keepdims=0) for limit in limits]
        return net.op("Clip", _x(net), *made)

    return build


def _gemm(a: int, b: int, bias: Sequence[int] | None) -> Build:
    def build(net: Net) -> str:
        x = net.input(4, 3) if a else net.input(3, 4)
        weight = net.weight(5, 4) if b else net.weight(4, 5)
        more = [] if bias is None else [net.weight(*bias)]
        return net.op("Gemm", x, weight, *more, transA=a, transB=b, alpha=0.5, beta=0.3)

    return build


def _sampled(net: Net) -> list[str]:
    return [_x(net), net.op("Tanh", net.input(2, 3, 5, 2, name="g"))]


def _positive(net: Net) -> list[str]:
    return [net.op("Sigmoid", net.input(2, 3, 2))]


def _written(net: Net) -> list[str]:
    places = net.constant(np.array([[[[0, -1, 3]]]], np.int64))
    return [_x(net), places, net.weight(1, 1, 1, 3)]


def _normed(kind: str, *shape: int, computed: bool = False, biased: bool = False) -> Build:
    def build(net: Net) -> str:
        weight = _computed(net, *shape) if computed else net.weight(*shape)
        bias = [net.weight(*shape)] if biased else []
        return net.op(kind, _x(net), weight, *bias, axis=-len(shape), epsilon=1e-2)

    return build


def _grouped(length: int, computed: bool = False) -> Build:
    def build(net: Net) -> str:
        scale = _computed(net, length) if computed else net.weight(length)
        shift = net.weight(length)
        return net.op("GroupNormalization", _x(net), scale, shift, num_groups=2, epsilon=1e-3)

    return build


def _by_dimensions(kind: str, axes: int, **attributes: Any) -> Build:
    def build(net: Net) -> str:
        sizes = {"kernel_shape": [3] * axes, "strides": [2] * axes, "pads": [1] * 2 * axes}
        if kind.startswith("Global"):
            sizes = {}
        return net.op(kind, net.input(2, 3, *[6] * axes), **sizes, **attributes)

    return build


_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""
_COMPRESSED = np.array([True, False, True, True])

CASES: dict[str, tuple[int, list[Build]]] = {
    "AveragePool": (18, _pools("AveragePool", *_ENDS, *_AUTOMATIC)),
    "MaxPool": (
        18,
        _pools(
            "MaxPool",
            *(
                {"pads": pads, "ceil_mode": c, "dilations": [1, 2]}
                for pads in _PADS
                for c in (0, 1)
            ),
            *({"auto_pad": kind} for kind in ("SAME_UPPER", "SAME_LOWER", "VALID")),
        ),
    ),
    "LpPool": (18, _pools("LpPool", *_POWERS)),
    "pools of 1 and 3 axes": (
        18,
        [
            *(_by_dimensions(kind, n) for kind in ("AveragePool", "MaxPool") for n in (1, 3)),
            *(_by_dimensions("LpPool", n, p=p) for n in (1, 3) for p in (2, 3)),
            *(_by_dimensions(f"Global{k}Pool", n) for k in ("Average", "Max") for n in (1, 3)),
            *(_by_dimensions("GlobalLpPool", 2, p=p) for p in (1, 2, 3)),
        ],
    ),
    "MaxPool with Indices": (18, [_places([0] * 4), _places([1] * 4)]),
    "MaxUnpool": (18, [_unpooled]),
    "ConvTranspose": (
        18,
        _each("ConvTranspose", _transposed_inputs, *({"strides": [2, 2]} | s for s in _TRANSPOSED)),
    ),
    "ConvTranspose computed": (
        18,
        [
            lambda net: net.op(
                "ConvTranspose",
                _x(net),
                _computed(net, 4, 3, 3, 2),
                net.weight(3),
                strides=[2, 1],
                pads=[1, 0, 1, 0],
            )
        ],
    ),
    "OneHot": (18, [_one_hot(axis, negative) for axis in (-1, 0, 1) for negative in (False, True)]),
    "ArgMax": (
        18,
        [
            (
                lambda net, kind=kind, axis=axis: _float(
                    net, net.op(kind, _x(net), axis=axis, keepdims=axis)
                )
            )  # type: ignore[misc]
            for kind in ("ArgMax", "ArgMin")
            for axis in (0, 1)
        ],
    ),
    "NonZero": (18, [lambda net: _float(net, net.op("NonZero", net.op("Relu", net.input(3, 4))))]),
    "Compress": (
        18,
        _each(
            "Compress",
            lambda net: [_x(net), net.constant(_COMPRESSED)],
            {},
            {"axis": 1},
            {"axis": -1},
        ),
    ),
    "NonMaxSuppression": (18, [_suppressed(c, b) for c in (0, 1) for b in (False, True)]),
    "RoiAlign": (
        16,
        [_regions(r, form) for r in (0, 1, 2) for form in ("half_pixel", "output_half_pixel")],
    ),
    "GroupNormalization-18": (18, [_grouped(2)]),
    "GroupNormalization-21": (21, [_grouped(4), _grouped(4, computed=True)]),
    "MeanVarianceNormalization": (
        13,
        _each("MeanVarianceNormalization", _image, {"axes": [1]}, {"axes": [0, 1, 2, 3]}),
    ),
    "LpNormalization": (
        18,
        _each("LpNormalization", _image, *({"axis": a, "p": p} for a in (1, -1) for p in (1, 2))),
    ),
    "LayerNormalization": (
        18,
        [
            _normed("LayerNormalization", 6, 6, biased=True),
            _normed("LayerNormalization", 1, 6),
            _normed("LayerNormalization", 6, computed=True, biased=True),
        ],
    ),
    "RMSNormalization": (
        23,
        [
            _normed("RMSNormalization", 6),
            _normed("RMSNormalization", 6, 6),
            _normed("RMSNormalization", 6, computed=True),
        ],
    ),
    "LRN": (18, _each("LRN", _image, {"size": 3, "alpha": 0.3, "beta": 0.6, "bias": 2.0})),
    "reductions": (
        18,
        [
            build
            for kind in _REDUCTIONS.split()
            for build in _each(kind, _positive, {"keepdims": 0}, {"noop_with_empty_axes": 1})
        ],
    ),
    "CumSum": (18, [lambda net: net.op("CumSum", _x(net), net.ints(-2), reverse=1)]),
    "Mod": (
        18,
        [_integers("Mod", n, fmod=f) for n in (3, -3) for f in (0, 1)],
    ),
    "Div of integers": (18, [_integers("Div", 3), _integers("Div", -3)]),
    "Clip": (
        18,
        [
            _clipped("ReduceMin"),
            _clipped("", "ReduceMax"),
            lambda net: net.op(
                "Clip",
                net.op("Mul", _x(net), _number(net, 5.0)),
                _number(net, 0.0),
                _number(net, 6.0),
            ),
        ],
    ),
    "Clip-7": (7, _each("Clip", _image, {"min": -0.3}, {"max": 0.4}, {"min": -0.2, "max": 0.5})),
    "HardSigmoid": (18, _each("HardSigmoid", _image, {"alpha": 1 / 6, "beta": 0.5})),
    "Swish": (24, _each("Swish", _image, {}, {"alpha": 0.6})),
    "Gelu": (20, _each("Gelu", _image, {"approximate": "tanh"})),
    "Shrink": (18, _each("Shrink", _image, {"lambd": 0.3, "bias": 0.2})),
    "ScatterElements": (
        18,
        _each(
            "ScatterElements",
            _written,
            *({"axis": -1, "reduction": r} for r in ("none", "add", "mul", "max", "min")),
        ),
    ),
    "GridSample": (
        16,
        _each(
            "GridSample",
            _sampled,
            *(
                {"mode": mode, "padding_mode": pad, "align_corners": corners}
                for mode in ("bilinear", "nearest", "bicubic")
                for pad in ("zeros", "border", "reflection")
                for corners in (0, 1)
            ),
        ),
    ),
    "Pad": (
        19,
        [
            *_each(
                "Pad", lambda net: [_x(net), net.ints(0, 0, 2, 1, 0, 0, 1, 3)], {"mode": "wrap"}
            ),
            lambda net: net.op(
                "Pad", _x(net), net.ints(1, -1, 2, 3), _number(net, 0.5), net.ints(3, -2)
            ),
        ],
    ),
    "Slice-9": (9, _each("Slice", _image, {"starts": [1, -3], "ends": [4, 100], "axes": [2, 3]})),
    "Gemm": (
        18,
        [_gemm(a, b, bias) for a in (0, 1) for b in (0, 1) for bias in (None, [5], [3, 1], [1])],
    ),
    "Einsum": (
        18,
        _each(
            "Einsum",
            lambda net: [_x(net), net.weight(6, 6)],
            *({"equation": e} for e in ("bchw,hw->bc", "...hw,wk->...hk")),
        ),
    ),
    "DepthToSpace": (18, _each("DepthToSpace", _image, {"blocksize": 2, "mode": "CRD"})),
    "Size": (18, [lambda net: net.op("Mul", _x(net), _float(net, net.op("Size", "x")))]),
}


@pytest.mark.parametrize("name", CASES)
def test_attributes_mean_what_onnxruntime_takes_them_for(name: str) -> None:
    opset, builds = CASES[name]
    for number, build in enumerate(builds):
        net = Net(opset, seed=number)
        proto = net.proto(y := build(net))
        feeds, model = feeds_of(proto, number), Model.from_proto(proto)
        found, wanted = lowered_outputs(model, proto, feeds)[y], run(proto, feeds)[y]
        assert found.shape == wanted.shape, (name, number)
        assert relative_error(found, wanted) <= 2e-5, (name, number)


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "its dilations are"),
        ("LpPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "it is dilated"),
        ("LRN", {"size": 2}, "its window is even"),
        ("ArgMax", {"select_last_index": 1}, "the last index of equal ones"),
    ],
)
def test_what_torch_has_no_layer_for_is_refused(
    kind: str, attributes: dict[str, Any], said: str
) -> None:
    net = Net(19)
    proto = net.proto(net.op(kind, _x(net), **attributes))
    with pytest.raises(IrpruneError, match=said):
        to_torch(Model.from_proto(proto))


def test_a_norm_of_nothing_has_a_slope() -> None:
    """The root of LpPool has none at zero, which ReLU makes many of."""
    net = Net(18)
    y = net.op("LpPool", _x(net), kernel_shape=[2, 2])
    x = torch.zeros(2, 4, 6, 6, requires_grad=True)
    to_torch(Model.from_proto(net.proto(y)))(x).sum().backward()
    assert x.grad is not None and not x.grad.any()

"""Corners of ops, types and names: what they compute against onnxruntime, or the refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from lowered import lowered_outputs
from strategies import Net, feeds_of, relative_error, run

from irprune.backends.torch import to_torch
from irprune.errors import IrpruneError
from irprune.model import Model

Build = Callable[[Net], str]
FLOAT, INT32, INT64, UINT8, UINT32 = 1, 6, 7, 2, 12
TALL = ("N", 3, 10, 7)


def _check(proto: onnx.ModelProto, case: str) -> None:
    feeds, model = feeds_of(proto, 3), Model.from_proto(proto)
    found, wanted = lowered_outputs(model, proto, feeds), run(proto, feeds)
    for value in proto.graph.output:
        made, right = found[value.name], wanted[value.name]
        assert (made.shape, made.dtype) == (right.shape, right.dtype), case
        assert relative_error(made, right) <= 2e-5, case


def _shape(net: Net, *dims: Any) -> str:
    return net.op("Shape", net.input(*dims or TALL, name="x"))


def _side(net: Net, axis: int = 2) -> str:
    """A length as a scalar; the input is dynamic there."""
    net.input("N", 3, "TEN", "T", name="x")
    return net.op("Gather", net.op("Shape", "x"), net.constant(np.array(axis, np.int64)))


def _wide(net: Net, x: str) -> str:
    return net.op("Cast", x, to=FLOAT)


def _numbers(net: Net, *numbers: float) -> str:
    return net.constant(np.array(numbers, np.float32))


def _scalar(net: Net, number: float) -> str:
    return net.constant(np.array(number, np.float32))


def _matrix(net: Net) -> str:
    return net.op("Reshape", _shape(net), net.ints(2, 2))


def _after(build: Callable[[Net, str], str], given: Build) -> Build:
    return lambda net: build(net, given(net))


LENGTHS: dict[str, Build] = {
    **{
        f"a vector unsqueezed at {axis}": lambda net, axis=axis: net.op(  # type: ignore[misc]
            "Unsqueeze", _shape(net), net.ints(axis)
        )
        for axis in (0, 1, -1)
    },
    "a column of a matrix": lambda net: net.op(
        "Slice", _matrix(net), net.ints(0), net.ints(1), net.ints(1)
    ),
    "a column gathered": lambda net: net.op("Gather", _matrix(net), net.ints(0), axis=1),
    "products of rows": lambda net: net.op("ReduceProd", _matrix(net), net.ints(0), keepdims=0),
    "a row squeezed": lambda net: net.op(
        "Squeeze", net.op("Reshape", _shape(net), net.ints(1, 4)), net.ints(0)
    ),
    "a length of zero copied": lambda net: net.op("Reshape", _shape(net), net.ints(0)),
    "a slice backward without axes": lambda net: net.op(
        "Slice", _shape(net), net.ints(-1), net.ints(-(2**31)), "", net.ints(-1)
    ),
    "a slice by steps without axes": lambda net: net.op(
        "Slice", _shape(net), net.ints(0), net.ints(4), "", net.ints(2)
    ),
    "a slice from a length on": lambda net: net.op(
        "Slice", _shape(net), net.op("Slice", "shape1", net.ints(0), net.ints(1)),
        net.ints(4),
    ),
    "a length gathered by another": lambda net: net.op(
        "Gather", _shape(net), net.op("Gather", "shape1", net.ints(0))
    ),
    "the largest of one": lambda net: net.op("Max", _shape(net)),
    "remainders with the dividend's sign": lambda net: net.op(
        "Mod", net.op("Sub", _shape(net), net.ints(5)), net.ints(3), fmod=1
    ),
    **{
        f"a length by {factor}": lambda net, factor=factor: net.op(  # type: ignore[misc]
            "Floor", net.op("Mul", _wide(net, _side(net)), _scalar(net, factor))
        )
        for factor in (0.7, 0.9, 1.3, 2.3)
    },
    "a root of a length": lambda net: net.op("Pow", _wide(net, _side(net)), _scalar(net, -0.5)),
    **{
        f"{kind} of a length": lambda net, kind=kind: _wide(  # type: ignore[misc]
            net, net.op(kind, _side(net), net.constant(np.array(10, np.int64)))
        )
        for kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    "a mask by a length": lambda net: net.op(
        "Where",
        net.op("Greater", _side(net), net.constant(np.array(20, np.int64))),
        _scalar(net, 0.0),
        _scalar(net, -np.inf),
    ),
    "a length of rank 1 and a scalar": lambda net: net.op(
        "Mul",
        _wide(net, net.op("Slice", _shape(net, "N", 3), net.ints(0), net.ints(1))),
        net.op("ReduceSum", "x", keepdims=0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LENGTHS)
def test_lengths_are_computed_as_onnxruntime_does(case: str) -> None:
    net = Net(18)
    _check(net.proto(LENGTHS[case](net)), case)


SCALES = ([1, 1, 0.7, 0.9], [1, 1, 1.3, 2.3], [1, 1, 2, 0.5], [1, 1, 0.1, 0.15])
_COORDINATES = {
    "nearest": (
        "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
        "half_pixel_symmetric",
    ),
    "linear": (
        "half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric",
    ),
    "cubic": ("half_pixel", "pytorch_half_pixel"),
}  # fmt: skip


@pytest.mark.parametrize("form", [(m, c) for m, found in _COORDINATES.items() for c in found])
@pytest.mark.parametrize("scales", SCALES)
def test_lengths_and_places_of_resize(form: tuple[str, str], scales: list[float]) -> None:
    net = Net(19)
    how = {"mode": form[0], "coordinate_transformation_mode": form[1]}
    y = net.op("Resize", net.input("N", 3, 10, 20), "", _numbers(net, *scales), **how)
    _check(net.proto(y), f"{form} {scales}")


RESIZED: dict[str, tuple[int, Build]] = {
    **{
        f"axes that keep their lengths under {scales}, {mode}": (
            19,
            lambda net, scales=scales, mode=mode: net.op(  # type: ignore[misc]
                "Resize", net.input(*TALL), "", _numbers(net, *scales), mode=mode
            ),
        )
        for scales in ([1, 1, 1, 1.04], [1, 1, 2, 1.04], [1, 1, 1.04, 0.5])
        for mode in ("nearest", "linear")
    },
    "channels last": (
        19,
        lambda net: net.op(
            "Resize", net.input(1, 6, 6, 3), "", "", net.ints(1, 12, 9, 3), mode="linear"
        ),
    ),
    **{
        f"a scale that inference leaves dynamic, {mode}": (
            19,
            lambda net, mode=mode: net.op(  # type: ignore[misc]
                "Resize",
                net.input("N", 3, "TEN", "TEN"),
                "",
                _numbers(net, 1, 1, 0.7, 1.3),
                mode=mode,
            ),
        )
        for mode in ("nearest", "linear", "cubic")
    },
    "scales of opset 10": (
        10,
        lambda net: net.op("Resize", net.input(*TALL), _numbers(net, 1, 1, 1.7, 0.7)),
    ),
}


@pytest.mark.parametrize("case", RESIZED)
def test_corners_of_resize(case: str) -> None:
    opset, build = RESIZED[case]
    net = Net(opset)
    _check(net.proto(build(net)), case)


def _x(net: Net, dtype: int = FLOAT) -> str:
    return net.input(2, 4, 6, 6, dtype=dtype)


def _ties(largest: int) -> Build:
    def build(net: Net) -> str:
        x = net.op("Round", net.input(4, 20))
        return net.split("TopK", x, net.ints(9), names=("v", "y"), largest=largest)[1]

    return build


def _whole(net: Net, dtype: int, low: int = -4) -> str:
    """Integers from -4 to 4."""
    many = net.op("Clip", net.op("Round", net.op("Mul", _x(net), _scalar(net, 3.0))),
                  _scalar(net, low), _scalar(net, 4.0))  # fmt: skip
    return net.op("Cast", many, to=dtype)


def _reduced(kind: str, dtype: int) -> Build:
    def build(net: Net) -> str:
        return net.op(kind, _whole(net, dtype, 1), net.ints(2), keepdims=0)

    return build


OPS: dict[str, Build] = {
    "ties go to the first, from above": _ties(1),
    "ties go to the first, from below": _ties(0),
    "Clip between equal bounds": lambda net: net.op(
        "Clip", _x(net), _scalar(net, 0.2), _scalar(net, 0.2)
    ),
    "Clip between crossed bounds": lambda net: net.op(
        "Clip", _x(net), _scalar(net, 0.5), _scalar(net, -0.5)
    ),
    **{
        f"{kind} of {dtype}": _reduced(kind, dtype)
        for kind in ("ReduceMean", "ReduceL1", "ReduceSumSquare")
        for dtype in (INT32, INT64)
    },
    "ReduceLogSum of integers": _reduced("ReduceLogSum", INT32),
    "CumSum of integers": lambda net: net.op("CumSum", _whole(net, INT32), net.ints(1)),
    "Shrink of integers": lambda net: net.op("Shrink", _whole(net, INT32), lambd=1.5, bias=0.5),
    "an integer to a float power": lambda net: net.op(
        "Pow", _whole(net, INT32, 1), _scalar(net, 0.5)
    ),
    "an integer to a negative power": lambda net: net.op(
        "Pow", _whole(net, INT32, 1), _scalar(net, -1.0)
    ),
    "a float to an integer power": lambda net: net.op("Pow", _x(net), net.ints(3)),
    "a product of integers and a sum": lambda net: net.op(
        "Add",
        net.op("MatMul", _whole(net, INT32), net.constant(np.ones((6, 3), np.int32))),
        net.constant(np.arange(3, dtype=np.int32)),
    ),
    "largest bytes with uneven pads": lambda net: net.op(
        "MaxPool", _x(net, UINT8), kernel_shape=[2, 2], pads=[0, 1, 1, 0]
    ),
    "InstanceNormalization of single places": lambda net: net.op(
        "InstanceNormalization", net.input(2, 4, 1, 1), net.weight(4), net.weight(4)
    ),
    "LpNormalization of zeros": lambda net: net.op(
        "LpNormalization", net.op("Mul", _x(net), _scalar(net, 0.0)), axis=1
    ),
    "a slice backward from before the start": lambda net: net.op(
        "Slice", _x(net), net.ints(-9), net.ints(-20), net.ints(2), net.ints(-1)
    ),
    "Squeeze by no axes": lambda net: net.op("Squeeze", net.input(2, 1, 3, 1), net.ints()),
    **{
        f"Pad {mode} that cuts": lambda net, mode=mode: net.op(  # type: ignore[misc]
            "Pad", _x(net), net.ints(0, 0, -2, 3, 0, 0, 5, -1), mode=mode
        )
        for mode in ("wrap", "edge")
    },
    "a computed target with a zero": lambda net: net.op(
        "Reshape",
        net.input(2, 3, 2),
        net.op("Add", net.op("Mul", net.input(2, dtype=INT64, name="z"), net.ints(0)),
               net.ints(0, 6)),
    ),
    "places of a scalar": lambda net: net.op("NonZero", net.op("ReduceMax", _x(net), keepdims=0)),
    "an empty range": lambda net: _wide(net, net.op(
        "Range", net.op("ReduceMax", net.input(2, dtype=INT64, name="i"), keepdims=0),
        net.constant(np.array(0, np.int64)), net.constant(np.array(1, np.int64)),
    )),
    "the last of a dynamic axis": lambda net: net.op(
        "Gather", net.input(2, "N", 3), net.ints(-1, 0), axis=1
    ),
    "elements from a dynamic end": lambda net: net.op(
        "GatherElements", net.input(2, "N"), net.constant(np.array([[-1], [0]], np.int64)), axis=1
    ),
    "written to a dynamic end": lambda net: net.op(
        "ScatterElements", net.input(2, "N"), net.constant(np.array([[-1], [0]], np.int64)),
        net.weight(2, 1), axis=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPS)
def test_corners_of_ops(case: str) -> None:
    net = Net(19)
    _check(net.proto(OPS[case](net)), case)


def test_a_constant_softmax_takes_all_axes_before_opset_13() -> None:
    net = Net(11)
    mask = net.op("Softmax", net.constant(np.eye(3, dtype=np.float32)[None]))
    _check(net.proto(net.op("Add", net.input(2, 3, 3), mask)), "Softmax-11")


def test_indices_that_are_an_output_are_made() -> None:
    net = Net(18)
    names = net.split("MaxPool", _x(net), names=["y", "i"], kernel_shape=[2, 2])
    _check(net.proto(*names), "MaxPool")


@pytest.mark.parametrize("kind", ["Relu", "Clip", "HardSwish"])
def test_activations_leave_what_others_read(kind: str) -> None:
    """Sum of one is its input itself; attention's kernel looks at its output for the gradient."""
    bounds = {"Clip": (-0.1, 0.2)}.get(kind, ())
    net = Net(18)
    x = net.op("Neg", _x(net))
    y = net.op(kind, net.op("Sum", x), *(_scalar(net, bound) for bound in bounds))
    _check(net.proto(y, net.op("Exp", x)), kind)
    net = Net(18)
    q, k, v = (net.linear(net.input(2, 2, 5, 4, name=n), 4, 4, f"p{n}") for n in "qkv")
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])))
    y = net.op(kind, net.op("MatMul", scores, v), *(_scalar(net, bound) for bound in bounds))
    _check(net.proto(y), kind)


@pytest.mark.parametrize(
    ("opset", "build", "said"),
    [
        (19, lambda net: net.op("Cast", _x(net, UINT32), to=FLOAT), "its input x is UINT32"),
        (
            19,
            lambda net: _wide(
                net, net.op("Gather", net.constant(np.arange(3, dtype=np.uint32)),
                            net.input(2, dtype=INT64)),
            ),
            "no type UINT32",
        ),
        (
            19,
            lambda net: net.op(
                "Resize", _x(net), net.weight(8), _numbers(net, 1, 1, 2, 2), mode="linear",
                coordinate_transformation_mode="tf_crop_and_resize",
            ),
            "its coordinates are tf_crop_and_resize",
        ),
        (
            19,
            lambda net: net.op(
                "Resize", _x(net), "", "", net.ints(2, 8, 9, 9), mode="cubic"
            ),
            "its mode is cubic",
        ),
        (
            19,
            lambda net: net.op(
                "MaxPool", _x(net), kernel_shape=[3, 3], dilations=[2, 2], auto_pad="SAME_UPPER"
            ),
            "its kernel is dilated",
        ),
        (
            7,
            lambda net: net.op(
                "BatchNormalization", net.input(2, 3, 2), *(net.weight(3, 2) for _ in range(4)),
                spatial=0,
            ),
            "spatial = 0",
        ),
    ],
)  # fmt: skip
def test_what_torch_would_compute_otherwise_is_refused(opset: int, build: Build, said: str) -> None:
    net = Net(opset)
    proto = net.proto(build(net))
    with pytest.raises(IrpruneError, match=said):
        to_torch(Model.from_proto(proto))


@pytest.mark.parametrize(
    "names", [("x.1", "x_1"), ("x:0", "x/0"), ("in", "lambda"), ("self", "torch")]
)
def test_inputs_have_any_names(names: tuple[str, str]) -> None:
    net = Net(18)
    for name in names:
        net.input(2, 3, name=name)
    _check(net.proto(net.op("Sub", *names)), str(names))


ODD = (
    "meta", "training", "_graph", "_code", "shape_env", "_tracer_cls", "lambda.weight", "None",
    "tensors.t1", "tensors.t0", "constants.c0",
)  # fmt: skip


def test_weights_have_any_names() -> None:
    net = Net(18)
    y = net.input(2, 3)
    for name in ODD:
        y = net.op("Mul", y, net.weight(3, name=name))
    proto = net.proto(y)
    _check(proto, "names")
    model = Model.from_proto(proto)
    module, other = to_torch(model), to_torch(model)
    state = module.state_dict()
    assert sorted(state) == sorted(ODD)
    other.load_state_dict({name: tensor + 1 for name, tensor in state.items()})
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, torch.from_numpy(np.array(model.tensors()[name].numpy())) + 1)
    model.update_from(other)


@pytest.mark.parametrize("name", ["eps", "momentum", "forward", "num_features.deep"])
def test_a_weight_may_be_called_as_a_setting_of_its_layer(name: str) -> None:
    net = Net(18)
    kinds = {"weight": None, "bias": None, "running_mean": None, "running_var": 0.5}
    held = [net.weight(4, name=f"bn.{kind}", low=low) for kind, low in kinds.items()]
    y = net.op("BatchNormalization", _x(net), *held)
    y = net.op("Mul", y, net.weight(6, name=f"bn.{name}"))
    proto = net.proto(y)
    _check(proto, name)
    assert set(to_torch(Model.from_proto(proto)).state_dict()) == {*held, f"bn.{name}"}


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_of_one_place_come_to_the_bias(groups: int) -> None:
    net = Net(21)
    weights = [net.weight(4, name=f"gn.{name}") for name in ("weight", "bias")]
    y = net.op("GroupNormalization", net.input(1, 4, 1, 1), *weights, num_groups=groups)
    _check(net.proto(y), str(groups))
    module = to_torch(Model.from_proto(net.proto(y)))
    assert isinstance(module.get_submodule("gn"), torch.nn.GroupNorm)

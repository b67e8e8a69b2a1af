"""Facts about slices: whatever they claim must hold for what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Net, batches, feeds_of, proto_of, run, seeds, value_of

from irprune.facts import Facts, Flow
from irprune.model import Model


def check(model: Model, seed: int = 0) -> Flow:
    """Assert that constants and equal slices are what they are said to be; return the facts."""
    flow = Flow(model.ir.graph)
    proto = proto_of(model)
    arrays = run(proto, feeds_of(proto, seed))
    slices: dict[tuple[int, tuple[int, ...]], npt.NDArray[Any]] = {}
    for node in model.ir.graph:
        for value in node.outputs:
            _check_value(value, flow.of(value), arrays[value.name or ""], slices)
    return flow


def _check_value(
    value: ir.Value,
    facts: Facts,
    array: npt.NDArray[Any],
    slices: dict[tuple[int, tuple[int, ...]], npt.NDArray[Any]],
) -> None:
    assert len(facts.shape) == array.ndim
    scale = max(1.0, float(np.abs(np.nan_to_num(array.astype(np.float64))).max(initial=0)))
    for k, n in enumerate(facts.shape):
        assert n in (1, array.shape[k]), f"{value.name}: {facts.shape} of {array.shape}"
    for index in np.ndindex(facts.shape):
        where = tuple(i if facts.tracked(k) else slice(None) for k, i in enumerate(index))
        part = np.asarray(array[where])
        if facts.known[index]:
            assert facts.const.dtype == array.dtype
            np.testing.assert_allclose(part, facts.const[index], 1e-5, 1e-6 * scale)
        other = slices.setdefault((int(facts.number[index]), part.shape), part)
        np.testing.assert_allclose(part, other, 1e-5, 1e-5 * scale, err_msg=str(value.name))


def known(flow: Flow, model: Model, name: str, axis: int = 1) -> dict[int, float]:
    """The constant positions of an axis of a value."""
    value = value_of(model, name)
    facts = flow.of(value).along(axis, value.shape[axis])
    return {int(i): round(float(facts.const[i]), 5) for i in np.flatnonzero(facts.known)}


def equal(flow: Flow, model: Model, name: str, axis: int = 1) -> list[list[int]]:
    """The sets of equal positions of an axis of a value, without positions of their own."""
    value = value_of(model, name)
    number = flow.of(value).along(axis, value.shape[axis]).number
    sets = [np.flatnonzero(number == n).tolist() for n in dict.fromkeys(number.tolist())]
    return [found for found in sets if len(found) > 1]


class Masked(Net):
    """A net with channels 1 constant 0.5, 2 constant 0, 3 constant -1 and 4 equal to 5."""

    def masked(self, batch: Any = 1, channels: int = 6, size: Any = (4, 4)) -> str:
        x = self.input(batch, 2, *size, name="x")
        w = self.random.normal(size=(channels, 2, 1, 1)).astype(np.float32)
        w[1:4] = 0
        b = self.random.normal(size=channels).astype(np.float32)
        b[1:4] = 0.5, 0, -1
        w[5], b[5] = w[4], b[4]
        return self.op("Conv", x, self.constant(w, "p.w"), self.constant(b, "p.b"), name="p")


CONSTANTS = {1: 0.5, 2: 0.0, 3: -1.0}


def facts_of(net: Net, *outputs: str) -> tuple[Flow, Model]:
    model = net.model(*outputs or ("y",))
    return check(model), model


def test_zero_filters_make_constants_and_equal_filters_equal_channels() -> None:
    net = Masked()
    net.op("Relu", net.masked("N", size=("H", "W")), name="y")
    flow, model = facts_of(net)
    assert known(flow, model, "p") == CONSTANTS
    assert known(flow, model, "y") == {1: 0.5, 2: 0.0, 3: 0.0}
    assert equal(flow, model, "p") == [[4, 5]]
    assert equal(flow, model, "y") == [[2, 3], [4, 5]]


def test_inputs_and_unknown_ops_are_opaque() -> None:
    net = Masked()
    net.op("LRN", net.masked(), name="y", size=3)
    flow, model = facts_of(net)
    assert known(flow, model, "y") == {} and equal(flow, model, "y") == []
    assert known(flow, model, "x") == {} and equal(flow, model, "x") == []


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("pad", [0, 1])
def test_constants_pass_a_convolution_that_pads_nothing(kernel: int, pad: int) -> None:
    net = Masked()
    w = np.zeros((4, 6, kernel, kernel), np.float32)
    w[0, 1:4], w[1, 2], w[2, 0] = 1, 1, 1
    pads = [pad] * 4
    net.op("Conv", net.masked(), net.constant(w), name="y", kernel_shape=[kernel] * 2, pads=pads)
    flow, model = facts_of(net)
    uniform = {} if pad else {0: -0.5 * kernel**2}
    assert known(flow, model, "y") == {**uniform, 1: 0.0, 3: 0.0}


def test_transposed_convolutions_keep_zero_and_point_wise_ones_all() -> None:
    net = Masked()
    x = net.masked()
    w = np.zeros((6, 3, 2, 2), np.float32)
    w[2, 0], w[1, 1], w[0, 2] = 1, 1, 1
    net.op("ConvTranspose", x, net.constant(w), name="a", strides=[2, 2])
    net.op("ConvTranspose", x, net.constant(w[:, :, :1, :1]), name="b")
    flow, model = facts_of(net, "a", "b")
    assert known(flow, model, "a") == {0: 0.0}
    assert known(flow, model, "b") == {0: 0.0, 1: 0.5}


def test_grouped_and_depthwise_convolutions() -> None:
    net = Masked()
    x = net.masked()
    grouped = net.random.normal(size=(4, 3, 1, 1)).astype(np.float32)
    grouped[:2, 0] = 0
    grouped[3] = grouped[2]
    net.op("Conv", x, net.constant(grouped), name="g", group=2)
    depthwise = np.ones((12, 1, 3, 3), np.float32)
    net.op("Conv", x, net.constant(depthwise), name="d", group=6)
    net.op("Conv", x, net.constant(depthwise), name="e", group=6, pads=[1] * 4)
    flow, model = facts_of(net, "g", "d", "e")
    assert set(known(flow, model, "g")) == {0, 1}
    assert equal(flow, model, "g") == [[2, 3]]
    assert known(flow, model, "d") == {2: 4.5, 3: 4.5, 4: 0, 5: 0, 6: -9, 7: -9}
    assert known(flow, model, "e") == {4: 0, 5: 0}
    assert [8, 9, 10, 11] in equal(flow, model, "e")


def test_equal_rows_on_equal_inputs_in_another_order() -> None:
    net = Masked()
    w = net.random.normal(size=(2, 6, 1, 1)).astype(np.float32)
    w[1] = w[0][[0, 1, 2, 3, 5, 4]]
    net.op("Conv", net.masked(), net.constant(w), name="y")
    flow, model = facts_of(net)
    assert equal(flow, model, "y") == [[0, 1]]


@pytest.mark.parametrize("form", ["plain", "transposed", "beta", "left"])
def test_gemm_and_matmul(form: str) -> None:
    net = Masked()
    x = net.masked(2, size=(1, 1))
    x = net.op("Flatten", x, axis=1)
    w = np.zeros((6, 3), np.float32)
    w[0, 0], w[1:4, 1], w[2, 2] = 1, 2, 1
    bias = net.constant(np.array([[1, 2, 3]], np.float32))
    match form:
        case "plain":
            net.op("Add", net.op("MatMul", x, net.constant(w)), bias, name="y")
            expected = {1: 1.0, 2: 3.0}
        case "transposed":
            net.op("Gemm", x, net.constant(w.T.copy()), bias, name="y", transB=1, alpha=3.0)
            expected = {1: -1.0, 2: 3.0}
        case "beta":
            net.op("Gemm", x, net.constant(w), bias, name="y", beta=0.5)
            expected = {1: 0.0, 2: 1.5}
        case _:
            net.op("Gemm", net.constant(w), x, name="y", transA=1, transB=1)
            flow, model = facts_of(net)
            assert known(flow, model, "y", 0) == {1: -1.0, 2: 0.0}
            return
    flow, model = facts_of(net)
    assert known(flow, model, "y") == expected


def test_batch_normalisation_and_its_zero_scales() -> None:
    net = Masked()
    parameters = [net.weight(6) for _ in range(3)]
    net.op("BatchNormalization", net.masked("N"), *parameters, net.weight(6, low=0.5), name="y")
    flow, model = facts_of(net)
    assert set(known(flow, model, "y")) == {1, 2, 3}
    net = Masked()
    scale = net.constant(np.array([0, 1, 1, 1, 2, 2], np.float32))
    bias = net.constant(np.array([7, 0, 0, 0, 3, 3], np.float32))
    zero, one = net.constant(np.zeros(6, np.float32)), net.constant(np.ones(6, np.float32))
    net.op("BatchNormalization", net.masked(), scale, bias, zero, one, name="y", epsilon=0.0)
    flow, model = facts_of(net)
    assert known(flow, model, "y") == {0: 7.0, **CONSTANTS}
    assert equal(flow, model, "y") == [[4, 5]]


def test_instance_normalisation_turns_constants_into_its_bias() -> None:
    net = Masked()
    scale, bias = net.constant(np.ones(6, np.float32)), net.constant(np.arange(6, dtype=np.float32))
    net.op("InstanceNormalization", net.masked(), scale, bias, name="y")
    flow, model = facts_of(net)
    assert known(flow, model, "y") == {1: 1.0, 2: 2.0, 3: 3.0}


def test_a_product_with_zero_is_zero_and_a_decided_choice_is_known() -> None:
    net = Masked()
    x = net.masked()
    net.op("Mul", x, net.op("Sigmoid", net.input(1, 6, 1, 1, name="s")), name="a")
    mask = net.constant(np.array([1, 0, 0, 1, 0, 1], bool).reshape(1, 6, 1, 1))
    net.op("Where", mask, x, net.constant(np.float32(9)), name="b")
    flow, model = facts_of(net, "a", "b")
    assert known(flow, model, "a") == {2: 0.0}
    assert known(flow, model, "b") == {1: 9.0, 2: 9.0, 3: -1.0, 4: 9.0}


def test_equal_numbers_need_equal_operands_at_equal_places() -> None:
    net = Masked()
    x = net.masked()
    s = net.input(1, 6, 4, 4, name="s")
    net.op("Add", x, s, name="a")
    net.op("Add", s, net.constant(np.zeros((1, 6, 1, 1), np.float32)), name="b")
    six = net.constant(np.float32(0.1))
    net.op("Clip", x, "", six, name="c")
    net.op("Clip", x, six, name="d")
    net.op("Concat", "c", "d", name="e", axis=1)
    flow, model = facts_of(net, "a", "b", "e")
    assert equal(flow, model, "a") == [] and equal(flow, model, "b") == []
    assert [4, 5] in equal(flow, model, "e") and [10, 11] in equal(flow, model, "e")


POOLS = [
    ("MaxPool", {"pads": [1] * 4}, CONSTANTS),
    ("AveragePool", {"pads": [1] * 4}, CONSTANTS),
    ("AveragePool", {"pads": [1] * 4, "count_include_pad": 1}, {2: 0.0}),
    ("AveragePool", {"ceil_mode": 1}, {2: 0.0}),
    ("LpPool", {}, {2: 0.0}),
]


@pytest.mark.parametrize(("kind", "attributes", "expected"), POOLS)
def test_pools(kind: str, attributes: dict[str, Any], expected: dict[int, float]) -> None:
    net = Masked()
    net.op(kind, net.masked(size=(5, 5)), name="y", kernel_shape=[2, 2], **attributes)
    flow, model = facts_of(net)
    assert known(flow, model, "y") == expected
    assert [4, 5] in equal(flow, model, "y")


GLOBAL = [
    ("GlobalAveragePool", CONSTANTS),
    ("GlobalMaxPool", CONSTANTS),
    ("GlobalLpPool", {2: 0.0}),
]


@pytest.mark.parametrize(("kind", "expected"), GLOBAL)
def test_global_pools(kind: str, expected: dict[int, float]) -> None:
    net = Masked()
    net.op(kind, net.masked("N", size=("H", "W")), name="y")
    flow, model = facts_of(net)
    assert known(flow, model, "y") == expected


@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(keepdims: int) -> None:
    net = Masked()
    x = net.masked("N")
    for kind in ("ReduceMean", "ReduceMax", "ReduceL2"):
        net.op(kind, x, name=kind, axes=[2, 3], keepdims=keepdims)
    net.op("ReduceMean", x, name="all", axes=[1], keepdims=keepdims)
    flow, model = facts_of(net, "ReduceMean", "ReduceMax", "ReduceL2", "all")
    assert known(flow, model, "ReduceMean") == CONSTANTS
    assert known(flow, model, "ReduceMax") == CONSTANTS
    assert known(flow, model, "ReduceL2") == {2: 0.0}


def test_concat_split_slice_and_gather_move_facts() -> None:
    net = Masked()
    x = net.masked("N")
    net.op("Concat", x, net.op("Relu", x), x, name="c", axis=1)
    net.split("Split", "c", net.ints(4, 14), names=["a", "b"], axis=1)
    net.op("Slice", "c", net.ints(5), net.ints(-99), net.ints(1), net.ints(-2), name="s")
    net.op("Gather", "c", net.ints(3, 17, 5, -1), name="g", axis=1)
    net.op("Slice", x, net.ints(0), net.ints(2), net.ints(3), name="r")
    flow, model = facts_of(net, "a", "b", "s", "g", "r")
    assert known(flow, model, "a") == CONSTANTS
    assert known(flow, model, "b") == {3: 0.5, 4: 0, 5: 0, 9: 0.5, 10: 0, 11: -1}
    assert known(flow, model, "s") == {1: -1.0, 2: 0.5}
    assert known(flow, model, "g") == {0: -1.0}
    assert equal(flow, model, "g") == [[1, 2, 3]]
    assert known(flow, model, "r") == CONSTANTS


def test_slices_of_other_axes_are_not_equal() -> None:
    net = Masked()
    x = net.masked()
    net.op("Slice", x, net.ints(0), net.ints(2), net.ints(3), name="a")
    net.op("Slice", x, net.ints(2), net.ints(4), net.ints(3), name="b")
    net.op("Gather", x, net.ints(0, 1), name="c", axis=3)
    net.op("Gather", x, net.ints(2, 3), name="d", axis=3)
    net.op("Concat", "a", "b", "c", "d", name="y", axis=1)
    flow, model = facts_of(net)
    assert set(known(flow, model, "y")) == {6 * k + i for k in range(4) for i in (1, 2, 3)}


def test_reshapes_merge_split_and_shuffle() -> None:
    net = Masked()
    x = net.masked()
    net.op("Reshape", x, net.ints(1, 2, 3, 4, 4), name="r")
    net.op("Transpose", "r", name="t", perm=[0, 2, 1, 3, 4])
    net.op("Reshape", "t", net.ints(1, 6, 4, 4), name="s")
    net.op("Flatten", x, name="f")
    net.op("Unsqueeze", net.op("Squeeze", x, net.ints(0)), net.ints(1), name="u")
    net.op("Reshape", x, net.ints(1, 6, 16), name="v")
    flow, model = facts_of(net, "s", "f", "u", "v")
    assert known(flow, model, "s") == {1: -1.0, 2: 0.5, 4: 0.0}
    assert equal(flow, model, "s") == [[3, 5]]
    assert known(flow, model, "f") == {
        c * 16 + i: v for c, v in CONSTANTS.items() for i in range(16)
    }
    assert [64, 80] in equal(flow, model, "f") and [64, 81] not in equal(flow, model, "f")
    assert known(flow, model, "u", 0) == CONSTANTS
    assert known(flow, model, "v") == CONSTANTS


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    net = Net()
    w = net.random.normal(size=(8, 2, 1, 1)).astype(np.float32)
    depth = np.arange(8).reshape((2, 4) if mode == "CRD" else (4, 2))
    w[depth[1] if mode == "CRD" else depth[:, 1]] = 0
    x = net.op("Conv", net.input(1, 2, 2, 2), net.constant(w), name="c")
    net.op("DepthToSpace", x, name="d", blocksize=2, mode=mode)
    net.op("SpaceToDepth", "d", name="y", blocksize=2)
    flow, model = facts_of(net)
    assert known(flow, model, "d") == {1: 0.0}
    assert known(flow, model, "y") == {1: 0.0, 3: 0.0, 5: 0.0, 7: 0.0}


def test_pads() -> None:
    net = Masked()
    x = net.masked("N")
    half = net.constant(np.float32(0.5))
    net.op("Pad", x, net.ints(0, 1, 0, 0, 0, 2, 0, 0), name="c")
    net.op("Pad", x, net.ints(0, -1, 1, 1, 0, 1, 1, 1), half, name="a")
    net.op("Pad", x, net.ints(0, 0, 1, 1, 0, 0, 1, 1), name="e", mode="edge")
    flow, model = facts_of(net, "c", "a", "e")
    assert known(flow, model, "c") == {0: 0, 2: 0.5, 3: 0, 4: -1, 7: 0, 8: 0}
    assert known(flow, model, "a") == {0: 0.5, 5: 0.5}
    assert known(flow, model, "e") == CONSTANTS


def test_resize_tile_and_expand() -> None:
    net = Masked()
    x = net.masked()
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    net.op("Resize", x, "", scales, name="r", mode="linear")
    net.op("Tile", x, net.ints(1, 2, 1, 2), name="t")
    net.op("Expand", net.op("GlobalAveragePool", x), net.ints(1, 6, 3, 3), name="e")
    flow, model = facts_of(net, "r", "t", "e")
    assert known(flow, model, "r") == CONSTANTS
    assert known(flow, model, "t") == {**CONSTANTS, 7: 0.5, 8: 0, 9: -1}
    assert [0, 6] in equal(flow, model, "t") and [4, 5, 10, 11] in equal(flow, model, "t")
    assert known(flow, model, "e") == CONSTANTS


UNARY = ["Relu", "Sigmoid", "Tanh", "HardSwish", "Elu", "Exp", "Neg", "Softplus", "Erf", "Abs"]
BINARY = ["Add", "Sub", "Mul", "Max", "Min"]
SPATIAL = [["MaxPool", [3, 3]], ["AveragePool", [2, 2]]]


@given(st.data(), batches, seeds)
def test_random_chains(data: st.DataObject, batch: Any, seed: int) -> None:
    net = Masked(opset=17, seed=seed)
    values = [net.masked(batch)]
    for _ in range(data.draw(st.integers(1, 6))):
        x = data.draw(st.sampled_from(values))
        match data.draw(st.sampled_from(["unary", "binary", "scale", "conv", "shuffle", "pad"])):
            case "unary":
                y = net.op(data.draw(st.sampled_from(UNARY)), x)
            case "binary":
                other = data.draw(st.sampled_from(values))
                y = net.op(data.draw(st.sampled_from(BINARY)), x, other)
            case "scale":
                factors = net.random.integers(-1, 2, (6, 1, 1)).astype(np.float32)
                y = net.op(data.draw(st.sampled_from(BINARY)), x, net.constant(factors))
            case "conv":
                group, pad = data.draw(st.sampled_from([1, 2, 3, 6])), data.draw(st.booleans())
                w = net.random.integers(-1, 2, (6, 6 // group, 3, 3)) * net.random.integers(
                    0, 2, (6, 6 // group, 1, 1)
                )
                pads = [1] * 4
                if not pad:
                    x = net.op("Pad", x, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="edge")
                    pads = [0] * 4
                w = net.constant(w.astype(np.float32))
                y = net.op("Conv", x, w, group=group, pads=pads)
            case "shuffle":
                y = net.op("Gather", x, net.ints(*net.random.integers(-6, 6, 6)), axis=1)
            case _:
                y = net.op("Pad", x, net.ints(0, 1, 0, 0, 0, -1, 0, 0))
        values.append(y)
    check(net.model(values[-1]), seed)

"""Facts under sums and element-wise ops: whatever they claim must hold in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fact_nets import CONSTANTS, Masked, check, equal, facts_of, known
from hypothesis import given
from hypothesis import strategies as st
from strategies import batches, seeds

from irprune.facts.linear import linear_of


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


@pytest.mark.parametrize(("kernel", "uniform"), [(1, True), (2, False)])
def test_same_padding_pads_kernels_of_more_than_a_point(kernel: int, uniform: bool) -> None:
    net = Masked()
    w = net.constant(np.ones((1, 6, kernel, kernel), np.float32))
    net.op("Conv", net.masked(), w, name="y", auto_pad="SAME_UPPER")
    seen = linear_of(net.model().ir.graph[1])
    assert seen is not None and seen.uniform == uniform


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


UNARY = ["Relu", "Sigmoid", "Tanh", "HardSwish", "Elu", "Exp", "Neg", "Softplus", "Erf", "Abs"]
BINARY = ["Add", "Sub", "Mul", "Max", "Min"]


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

"""Costs of small networks, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from strategies import Net, compacted, random_keep, seeds, value_of

from irprune.channels import analyse
from irprune.cost import Cost, CostModel, input_symbols
from irprune.model import Model
from irprune.passbase import Context
from irprune.shapes import infer


def _classifier(batch: int | str = 2) -> Model:
    """Convolution with bias, Relu, pooling and a linear layer on (batch, 3, 6, 6)."""
    net = Net()
    x = net.input(batch, 3, 6, 6)
    w, b = net.weight(8, 3, 3, 3, name="w"), net.weight(8, name="b")
    c = net.op("Relu", net.op("Conv", x, w, b, name="c"), name="r")
    p = net.op("Flatten", net.op("GlobalAveragePool", c, name="p"), name="f")
    net.linear(p, 8, 5, "y")
    return net.model()


def test_a_small_classifier() -> None:
    costs = CostModel(_classifier().ir.graph).full()
    assert costs.params == 8 * 27 + 8 + 8 * 5
    assert costs.macs == 2 * (8 * 27 * 16 + 8 * 5)
    assert costs.weight_bytes == 4 * costs.params
    # the map after the convolution and after Relu, two pooled vectors, the result
    assert costs.activation_bytes == 4 * 2 * (2 * 8 * 16 + 2 * 8 + 5)
    assert costs.peak_activation_bytes == 4 * 2 * 2 * 8 * 16
    assert costs.to_json() == {
        "params": 264,
        "macs": 6992,
        "weight_bytes": 1056,
        "activation_bytes": 2216,
        "peak_activation_bytes": 2048,
    }


def test_integers_are_bytes_but_no_parameters() -> None:
    net = Net()
    table = net.weight(10, 4, name="table")
    net.op("Gather", table, net.constant(np.array([[1, 2, 3]]), "i"), name="g")
    net.linear(net.op("Add", "g", net.tokens(4)), 4, 2, "y")
    costs = CostModel(net.model().ir.graph).full()
    assert costs.params == 40 + 2 * 4 + 4 * 2
    assert costs.weight_bytes == 4 * costs.params + 8 * 3


@pytest.mark.parametrize(("dtype", "width"), [(np.float16, 2), (np.float64, 8), (np.float32, 4)])
def test_bytes_follow_the_type(dtype: type[np.floating], width: int) -> None:
    net = Net()
    x = net.op("Cast", net.input(1, 4), to=_onnx_type(dtype))
    net.op("MatMul", x, net.constant(np.ones((4, 3), dtype)), name="y")
    costs = CostModel(net.model().ir.graph).full()
    assert costs.weight_bytes == 12 * width
    assert costs.activation_bytes == (4 + 3) * width


def _onnx_type(dtype: type[np.floating]) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def test_the_peak_holds_a_skip_connection_until_it_is_added() -> None:
    """Bytes alive at each node: 1, 1 + 3, 1 + 3 + 3, 1 + 3 + 1, 1 + 1 + 1 units of 64."""
    net = Net()
    a = net.op("Relu", net.input(1, 16))
    b = net.linear(a, 16, 48)
    b = net.linear(net.op("Relu", b), 48, 16)
    net.op("Add", a, b, name="y")
    assert CostModel(net.model().ir.graph).full().peak_activation_bytes == 64 * 7


def test_results_that_nobody_reads_live_for_one_node() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    net.op("Relu", x, name="unread")
    net.op("Neg", x, name="y")
    costs = CostModel(net.model().ir.graph).full()
    assert costs.activation_bytes == 2 * 128
    assert costs.peak_activation_bytes == 128


def test_dynamic_axes_count_as_given_or_else_as_one() -> None:
    model = _classifier("N")
    once = CostModel(model.ir.graph).full()
    shapes = {"x": (3, 3, 6, 6), "unrelated": (7,)}
    assert input_symbols(model.ir.graph, shapes) == {"N": 3}
    thrice = model, Context(shapes=shapes)
    costs = thrice[1].get(Cost(), thrice[0]).full()
    assert costs.macs == 3 * once.macs
    assert costs.params == once.params
    assert costs.activation_bytes == 3 * once.activation_bytes


@given(seed=seeds)
def test_the_cost_of_a_plan_is_that_of_the_compacted_graph(seed: int) -> None:
    """Three ways to one number: kept classes, the plan, and the smaller graph itself."""
    model = _classifier("N" if seed % 2 else 2)
    channels = analyse(model.ir.graph)
    keep = random_keep(channels, seed)
    plan = channels.plan(keep)
    small = compacted(model, plan)
    infer(small.ir)
    cost = CostModel(model.ir.graph, {"N": 2})
    expected = CostModel(small.ir.graph, {"N": 2}).full()
    assert cost.of_plan(plan) == expected
    assert cost.measure(channels, "macs")(keep) == expected.macs
    assert cost.measure(channels, "params")(keep) == expected.params


def test_nodes_of_unknown_shape_cost_nothing() -> None:
    net = Net()
    x = net.op("Reshape", net.input(1, 4), net.input("R", name="s", dtype=7), name="r")
    net.op("MatMul", x, net.weight(4, 3, name="w"), name="y")
    model = net.model()
    assert value_of(model, "y").shape is None
    costs = CostModel(model.ir.graph).full()
    assert (costs.macs, costs.params, costs.activation_bytes) == (0, 12, 0)

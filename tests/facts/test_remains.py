"""What remains without emptied axes: constants, living nodes, and why it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
from branch_nets import Blocks, emptying
from strategies import value_of

from irprune.channels import analyse
from irprune.facts.remains import Remains
from irprune.plan import Plan


def _block(opset: int = 17) -> Blocks:
    net = Blocks(opset)
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"), name="t")
    y = net.relu(net.biased(x, 4, 6, name="a"), name="r")
    net.relu(net.biased(y, 6, 4, 3, name="b"), name="s")
    net.biased(net.op("Add", x, "s", name="sum"), 4, 3, name="y")
    return net


def test_a_sum_over_nothing_is_its_bias_and_goes_on_as_a_constant() -> None:
    model = _block().model()
    remains = Remains(model.ir.graph, emptying(model, "a.w"))
    assert {v.name for v in remains.gone} == {"a.w", "a.b", "a", "r", "b.w"}
    bias = value_of(model, "b.b").const_value.numpy().reshape(1, 4, 1, 1)
    constants = {v.name: facts.const for v, facts in remains.constants.items()}
    assert constants.keys() == {"b", "s"}
    assert np.array_equal(constants["b"], bias)
    assert np.array_equal(constants["s"], np.maximum(bias, 0))
    assert not remains.obstacles
    assert [(c.node.op_type, c.index, c.kind) for c in remains.cuts] == [("Add", 1, "term")]


def test_positions_that_a_plan_drops_from_a_constant_are_zero() -> None:
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    net.biased(net.op("Add", x, net.bottleneck(x, 4, 6, "b")), 4, 3, name="y")
    model = net.model()
    plan = emptying(model, "b.w")
    some = np.array([True, False] * 3 + [True])
    middle = analyse(model.ir.graph).of(value_of(model, "b.middle"))[1]
    assert middle is not None and len(middle) == len(some)
    plan.axes["b.middle"] = {1: some}
    remains = Remains(model.ir.graph, plan)
    facts = remains.constants[value_of(model, "b.middle")]
    assert np.array_equal(facts.const.ravel() != 0, some)


def test_nothing_remains_to_be_told_of_a_plan_that_empties_nothing() -> None:
    model = _block().model()
    plan = Plan({"a": {1: np.array([True, False, True, True, True, True])}})
    remains = Remains(model.ir.graph, plan)
    assert not (remains.gone or remains.constants or remains.cuts or remains.obstacles)


@pytest.mark.parametrize(("opset", "fits"), [(7, False), (8, True)])
def test_old_ops_do_not_broadcast_constants(opset: int, fits: bool) -> None:
    model = _block(opset).model()
    obstacles = Remains(model.ir.graph, emptying(model, "a.w")).obstacles
    assert bool(obstacles) is not fits


@pytest.mark.parametrize("kind", ["operand", "part"])
def test_kinds_of_cuts(kind: str) -> None:
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    if kind == "operand":
        x = net.op("Mul", x, net.biased(net.biased(x, 4, 6, name="a"), 6, 4))
    else:
        x = net.op("Concat", x, net.biased(x, 4, 6, name="a"), axis=1)
    net.biased(x, 4 if kind == "operand" else 10, 3, name="y")
    model = net.model()
    remains = Remains(model.ir.graph, emptying(model, "a.w"))
    assert not remains.obstacles
    assert [cut.kind for cut in remains.cuts] == [kind]


def test_a_dead_output_is_an_obstacle() -> None:
    model = _block().model("y", "s")
    (obstacle,) = Remains(model.ir.graph, emptying(model, "a.w")).obstacles
    assert obstacle == "output s would not depend on the input"

"""The structural verifier: what it lets pass and what it catches."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from norm_nets import NormNet
from strategies import Net, value_of

from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Plan
from irprune.queries import dims_of
from irprune.shapes import infer
from irprune.structure import check


def _net(batch: int | str = "N") -> Model:
    net = Net()
    x = net.op("Relu", net.conv(net.input(batch, 3, 4, 4), 3, 6, name="a"), name="r")
    net.linear(net.op("Flatten", x, name="f"), 96, 5, "y")
    return net.model()


def _fails(model: Model, message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        check(model, Context())


@pytest.mark.parametrize("batch", [2, "N"])
def test_a_good_graph_passes(batch: int | str) -> None:
    check(_net(batch), Context())


def test_a_result_of_unknown_shape_passes() -> None:
    net = Net()
    shape = net.input("R", name="s", dtype=7)
    net.op("Relu", net.op("Reshape", net.image(3), shape, name="c"), name="y")
    check(net.model(), Context())


def test_a_stated_shape_that_is_wrong_is_caught() -> None:
    model = _net()
    value_of(model, "r").shape = ir.Shape(["N", 5, 4, 4])
    _fails(
        model, r"r\.Relu \(Relu\): r is stated as \['N', 5, 4, 4\] but inferred as \[.*6, 4, 4\]"
    )


def test_a_stated_rank_that_is_wrong_is_caught() -> None:
    model = _net()
    value_of(model, "r").shape = ir.Shape(["N", 6, 16])
    _fails(model, "r is stated as")


def test_a_wrong_graph_output_is_caught() -> None:
    model = _net()
    value_of(model, "y").shape = ir.Shape(["N", 4])
    _fails(model, "y")


def test_a_weight_that_does_not_fit_is_caught() -> None:
    model = _net()
    weight = value_of(model, "y.w")
    weight.const_value = ir.tensor(np.zeros((90, 5), np.float32), name="y.w")
    weight.shape = ir.Shape([90, 5])
    _fails(model, r"y\.MatMul \(MatMul\): shape inference failed: Incompatible dimensions")


def test_a_weight_whose_numbers_belie_its_shape_is_caught() -> None:
    model = _net()
    value_of(model, "a.w").const_value = ir.tensor(np.zeros((5, 3, 1, 1), np.float32), name="a.w")
    _fails(model, "a")


def test_a_bad_attribute_is_caught() -> None:
    model = _net()
    node = value_of(model, "a").producer()
    node.attributes["strides"] = ir.AttrString("strides", "two")
    _fails(model, r"a\.Conv \(Conv\): shape inference failed: Attribute strides has incorrect size")


def test_an_unknown_op_is_caught() -> None:
    model = _net()
    value_of(model, "r").producer().op_type = "Rectify"
    _fails(model, "Rectify")


def test_two_tensors_of_one_name_are_caught() -> None:
    model = _net()
    value_of(model, "r").name = "f"
    _fails(model, "two tensors are named f")


def test_an_input_from_nowhere_is_caught() -> None:
    model = _net()
    node = value_of(model, "r").producer()
    node.replace_input_with(0, ir.Value(name="ghost"))
    _fails(model, r"r\.Relu \(Relu\): input ghost is produced by no node")


def test_an_empty_graph_is_caught() -> None:
    model = _net()
    model.ir.graph.remove(list(model.ir.graph))
    _fails(model, "the graph is empty")


def test_a_cycle_is_caught() -> None:
    model = _net()
    value_of(model, "r").producer().replace_input_with(0, value_of(model, "f"))
    _fails(model, "the graph has a cycle")


@pytest.mark.parametrize("name", ["pending", "plan"])
def test_a_plan_for_other_tensors_is_caught(name: str) -> None:
    model = _net()
    model.base = model.ir.clone()
    mask = np.array([True] * 5 + [False])
    setattr(model, name, Plan({"a.w": {0: mask}}))
    check(model, Context())
    setattr(model, name, Plan({"ghost": {0: mask}}))
    _fails(model, "the plan names tensor ghost, which the base lacks")


# Shape inference


def test_stale_shapes_are_replaced() -> None:
    model = _net()
    value_of(model, "r").shape = ir.Shape([7])
    value_of(model, "f").shape = None
    infer(model.ir)
    assert list(value_of(model, "r").shape.dims)[1:] == [6, 4, 4]
    assert value_of(model, "f").shape[1] == 96


def test_a_shape_that_cannot_be_known_becomes_unknown() -> None:
    net = Net()
    shape = net.input("R", name="s", dtype=7)
    net.op("Relu", net.op("Reshape", net.image(3), shape, name="c"), name="y")
    model = net.model()
    value_of(model, "c").shape = ir.Shape([3, 16])
    infer(model.ir)
    assert value_of(model, "c").shape is None


def test_inference_leaves_inputs_weights_and_their_order() -> None:
    model = _net()
    names = list(model.ir.graph.initializers)
    big = value_of(model, "y.w").const_value
    infer(model.ir)
    assert [v.name for v in model.ir.graph.inputs] == ["x"]
    assert sorted(model.ir.graph.initializers) == sorted(names)
    assert value_of(model, "y.w").const_value is big


def test_shapes_that_disagree_name_the_node() -> None:
    model = _net()
    value_of(model, "y").producer().replace_input_with(0, value_of(model, "r"))
    with pytest.raises(IrpruneError, match=r"y\.MatMul \(MatMul\): shape inference failed"):
        infer(model.ir)


def test_a_group_norm_has_the_shape_of_its_data() -> None:
    """onnx infers not even a type for it."""
    net = NormNet(21)
    parameters = net.weight(4), net.weight(4)
    net.op("GroupNormalization", net.image(4, "N"), *parameters, name="c", num_groups=2)
    net.op("Relu", "c", name="y")
    model = net.model()
    assert dims_of(value_of(model, "c")) == ["N", 4, 4, 4]
    assert [node.op_type for node in model.ir.graph] == ["Conv", "GroupNormalization", "Relu"]
    check(model, Context())

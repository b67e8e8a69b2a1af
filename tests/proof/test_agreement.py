"""What must agree exactly between a base and its pruned graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from cases import Case, layers, node, pruned
from strategies import Net

from irprune.plan import Plan
from irprune.proof import agreement


def problems(case: Case) -> list[str]:
    base, small, plan = case
    found = list(agreement.interface(base, small))
    for check in (agreement.shapes, agreement.weights, agreement.nodes):
        found += check(base, small, plan)
    return found


def renamed(model: ir.Model) -> None:
    model.graph.outputs[0].name = "other"


def typed(model: ir.Model) -> None:
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def batched(model: ir.Model) -> None:
    model.graph.outputs[0].shape = ir.Shape([2, 4, 4, 4])


def narrowed(model: ir.Model) -> None:
    node(model, "r").outputs[0].shape = ir.Shape(["N", 99, 4, 4])


def scaled(model: ir.Model) -> None:
    value = model.graph.initializers["b.scale"]
    assert value.const_value is not None
    array = np.nextafter(value.const_value.numpy(), np.float32(9))
    value.const_value = ir.tensor(array, name=value.name)


def epsilon(model: ir.Model) -> None:
    node(model, "b").attributes["epsilon"] = ir.AttrFloat32("epsilon", 1.1e-5)


def replaced(model: ir.Model) -> None:
    node(model, "r").op_type = "Elu"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (renamed, "the outputs are ['other'], were ['y']"),
        (typed, "x is of type DOUBLE, was FLOAT"),
        (batched, "y has shape [2, 4, 4, 4], had ['N', 4, 4, 4]"),
        (narrowed, "r has shape ['N', 99, 4, 4], the plan keeps ['N', "),
        (scaled, "initializer b.scale differs from the kept part of the base's"),
        (epsilon, "attribute epsilon of node b.BatchNormalization (BatchNormalization) changed"),
        (replaced, "node r.Relu (Relu) became a Elu"),
    ],
)
def test_a_change_is_named(change: Callable[[ir.Model], None], reason: str) -> None:
    case = pruned(layers().model())
    assert problems(case) == []
    change(case[1])
    assert problems(case)[0].startswith(reason)


def test_dimensions_that_the_base_leaves_open_may_be_stated() -> None:
    base, small, plan = pruned(layers().model())
    base.graph.outputs[0].shape = ir.Shape([None, 4, None, 4])
    assert problems((base, small, plan)) == []
    base.graph.outputs[0].shape = None
    assert problems((base, small, plan)) == []
    small.graph.outputs[0].shape = None
    base.graph.outputs[0].shape = ir.Shape([None, 4, None, 4])
    assert problems((base, small, plan)) == ["y has shape None, had [None, 4, None, 4]"]


def test_constants_of_shapes_may_change_in_place() -> None:
    net = Net()
    net.conv(net.input(1, 3, 2, 2), 3, 8, name="a")
    net.linear(net.op("Reshape", "a", net.constant(np.array([1, 32]), "shape")), 32, 4, name="y")
    base, small, plan = pruned(net.model())
    edited = next(n for n in small.graph if n.op_type == "Reshape").inputs[1]
    assert edited is not None and edited.name != "shape"
    edited.name = "shape"
    assert problems((base, small, plan)) == []


def test_integers_beside_the_plan_alone_may_change() -> None:
    net = layers()
    net.op("Softmax", "y", name="z", axis=1)
    case = pruned(net.model("z"))
    node(case[1], "a").attributes["group"] = ir.AttrInt64("group", 2)
    assert problems(case) == []
    node(case[1], "z").attributes["axis"] = ir.AttrInt64("axis", 2)
    assert problems(case) == ["attribute axis of node z.Softmax (Softmax) changed"]


def test_tensors_of_attributes_must_be_equal() -> None:
    net = layers()
    ones = ir.to_proto(ir.tensor(np.ones(1, np.float32)))
    net.op(
        "Add", "y", net.op("ConstantOfShape", net.ints(1, 4, 1, 1), name="c", value=ones), name="z"
    )
    case = pruned(net.model("z"))
    assert problems(case) == []
    twos = ir.tensor(np.full(1, 2, np.float32))
    node(case[1], "c").attributes["value"] = ir.AttrTensor("value", twos)
    assert problems(case) == ["attribute value of node c.ConstantOfShape (ConstantOfShape) changed"]


def test_the_scale_of_attention_may_be_written_out_as_it_was() -> None:
    """Without the attribute it comes from the width of a head, which may have changed."""

    def attention(scale: float | None) -> ir.Model:
        net = Net(23)
        x = net.input(1, 3, 8)
        given = {} if scale is None else {"scale": scale}
        net.op("Attention", x, x, x, name="y", q_num_heads=2, kv_num_heads=2, **given)
        return net.model().ir

    for old, new, found in [(None, 0.5, 0), (None, 0.6, 1), (0.5, None, 1), (0.6, 0.6, 0)]:
        problems = list(agreement.nodes(attention(old), attention(new), Plan()))
        assert len(problems) == found, problems

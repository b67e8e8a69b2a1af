"""`compact`: the graph becomes smaller, names and types stay, bad plans are refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from strategies import Net, check_equal, compacted, proto_of, value_of

from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import Compact, compact_graph
from irprune.pipeline.manager import run_pass
from irprune.plan import Mask, Plan


def _net() -> Model:
    net = Net()
    x = net.op("Relu", net.conv(net.input("N", 3, 4, 4), 3, 6, name="a"), name="r")
    x = net.op("Reshape", x, net.ints(0, 2, 3, 4, 4), name="s")
    x = net.op("Reshape", net.op("Transpose", x, perm=[0, 2, 1, 3, 4]), net.ints(0, 6, 4, 4))
    net.conv(x, 6, 4, name="b")
    net.conv("b", 4, 2, name="y")
    return net.model()


def _mask(kept: list[int], size: int) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[kept] = True
    return mask


def _plan(model: Model) -> Plan:
    """Half the classes of each layer."""
    channels = analyse(model.ir.graph)
    keep = np.ones(channels.count, np.bool_)
    for name in ("a.w", "b.w"):
        classes = np.unique(channels.of(value_of(model, name))[0])
        keep[classes[::2]] = False
    return channels.plan(keep)


def test_names_types_and_inputs_stay() -> None:
    model = _net()
    small = compacted(model, _plan(model))
    before, after = proto_of(model).graph, proto_of(small).graph
    assert [n.name for n in before.node] == [n.name for n in after.node]
    assert [list(n.output) for n in before.node] == [list(n.output) for n in after.node]
    assert list(before.input) == list(after.input)
    assert list(before.output) == list(after.output)
    kept = {t.name for t in before.initializer} & {t.name for t in after.initializer}
    assert {"a.w", "b.w", "y.w"} <= kept


def test_shapes_and_weights_shrink() -> None:
    model = _net()
    plan = _plan(model)
    small = compacted(model, plan)
    assert list(value_of(small, "a.w").shape) == [2, 3, 1, 1]
    assert list(value_of(small, "s").shape.dims)[1:] == [2, 1, 4, 4]
    weight = value_of(model, "b.w").const_value.numpy()
    rows, columns = plan.axes["b.w"][0], plan.axes["b.w"][1]
    assert np.array_equal(value_of(small, "b.w").const_value.numpy(), weight[np.ix_(rows, columns)])


def test_the_original_keeps_its_weights() -> None:
    model = _net()
    weight = value_of(model, "b.w").const_value.numpy().copy()
    compacted(model, _plan(model))
    assert np.array_equal(value_of(model, "b.w").const_value.numpy(), weight)
    assert list(value_of(model, "b.w").shape) == [4, 6, 1, 1]


def test_the_pass_keeps_the_base_and_the_plan() -> None:
    model = _net()
    before = proto_of(model)
    model.pending = plan = _plan(model)
    assert run_pass(Compact(), model, Context()) == {"sliced_tensors": len(plan.axes)}
    assert model.base is not None
    assert model.plan is plan
    assert model.pending is None
    assert proto_of(Model.from_ir(model.base)) == before
    check_equal(Model.from_ir(model.base), model, plan, 1)


def test_without_a_plan_nothing_happens() -> None:
    model = _net()
    before = proto_of(model)
    Compact().run(model, Context())
    assert proto_of(model) == before
    assert model.base is None
    assert model.plan is None


def test_constants_that_nobody_reads_any_more_go() -> None:
    model = _net()
    small = compacted(model, _plan(model))
    read = {name for node in proto_of(small).graph.node for name in node.input}
    assert set(small.ir.graph.initializers) <= read


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"ghost": {0: _mask([0], 2)}}, "the plan names ghost, which the graph lacks"),
        ({"x": {1: _mask([0], 3)}}, "the plan names x, which the graph lacks"),
        ({"a.w": {0: _mask([0], 5)}}, r"axis 0 of a\.w does not fit its shape \[6, 3, 1, 1\]"),
        ({"a.w": {4: _mask([0], 6)}}, r"axis 4 of a\.w does not fit"),
        ({"a.w": {-4: _mask([0], 6)}}, r"axis -4 of a\.w does not fit"),
        ({"a": {0: _mask([0], 2)}}, r"axis 0 of a does not fit its shape \['N', 6, 4, 4\]"),
        ({"a.w": {0: _mask([], 6)}}, r"the plan keeps no position of axis 0 of a\.w"),
    ],
)
def test_a_plan_for_another_graph_is_refused(
    axes: dict[str, dict[int, Mask]], message: str
) -> None:
    model = _net()
    before = proto_of(model)
    with pytest.raises(IrpruneError, match=message):
        compact_graph(model.ir.graph, Plan(axes))
    assert proto_of(model) == before


def test_a_plan_that_contradicts_itself_is_caught() -> None:
    model = _net()
    model.pending = Plan({"b.w": {0: _mask([0, 1], 4)}})
    with pytest.raises(IrpruneError, match="left a wrong model"):
        run_pass(Compact(), model, Context())


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float64, np.int8, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
)
def test_weights_of_every_type_are_sliced(dtype: Any) -> None:
    numbers = np.arange(24).reshape(6, 4).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    tensor = numpy_helper.from_array(numbers, "w")
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "c"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "v"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [tensor, numpy_helper.from_array(np.ones((4, 3), np.float32), "v")],
        value_info=[
            helper.make_tensor_value_info("c", TensorProto.FLOAT, [6, 4]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 4]),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    model = Model.from_proto(proto)
    channels = analyse(model.ir.graph)
    keep = np.ones(channels.count, np.bool_)
    keep[channels.of(value_of(model, "w"))[1][1:3]] = False
    small = compacted(model, channels.plan(keep))
    (result,) = (t for t in proto_of(small).graph.initializer if t.name == "w")
    assert result.data_type == kind
    assert onnx.numpy_helper.to_array(result).tolist() == numbers[:, [0, 3]].tolist()

"""The masked reference: what it computes, what it looks like, and which plans it refuses."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto
from strategies import Net, proto_of, run

from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.plan import Plan
from irprune.proof.reference import masked_reference

KEPT = np.array([True, False, True, True])


def chain(opset: int = 17) -> Model:
    """Two linear layers with four channels, named a, between them."""
    net = Net(opset)
    net.linear(net.input("N", 3), 3, 4, name="a")
    net.linear(net.op("Relu", "a", name="r"), 4, 2, name="y")
    return net.model()


def chain_plan(kept: np.ndarray = KEPT) -> Plan:
    return Plan({"a.w": {1: kept}, "a": {1: kept}, "r": {1: kept}, "y.w": {0: kept}})


def computed(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return run(proto_of(Model.from_ir(model)), feeds)


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def weight(model: Model, name: str) -> np.ndarray:
    tensor = model.ir.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


@pytest.mark.parametrize("opset", [8, 9, 17])
def test_dropped_channels_are_zero_where_they_are_summed(opset: int) -> None:
    model = chain(opset)
    reference = masked_reference(model.ir, chain_plan())
    assert kinds(reference) == ["MatMul", "Relu", "Mul" if opset < 9 else "Where", "MatMul"]
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    hidden = np.maximum(x @ weight(model, "a.w"), 0)
    found = computed(reference, {"x": x})
    np.testing.assert_allclose(found["r"], hidden, rtol=1e-5)
    np.testing.assert_allclose(found["y"], (hidden * KEPT) @ weight(model, "y.w"), rtol=1e-5)


def test_the_base_stays_and_its_weights_are_shared() -> None:
    model = chain()
    reference = masked_reference(model.ir, chain_plan())
    assert kinds(model.ir) == ["MatMul", "Relu", "MatMul"]
    for name, value in model.ir.graph.initializers.items():
        assert reference.graph.initializers[name].const_value is value.const_value


def test_an_empty_plan_masks_nothing() -> None:
    assert kinds(masked_reference(chain().ir, Plan.empty())) == ["MatMul", "Relu", "MatMul"]


def test_nan_in_a_dropped_channel_stays_out() -> None:
    model = chain()
    array = weight(model, "a.w").copy()
    array[:, 1] = np.nan
    model.ir.graph.initializers["a.w"].const_value = ir.tensor(array, name="a.w")
    found = computed(masked_reference(model.ir, chain_plan()), {"x": np.ones((2, 3), np.float32)})
    assert np.isnan(found["a"][:, 1]).all()
    assert np.isfinite(found["y"]).all()


def test_one_mask_serves_all_readers_of_a_tensor() -> None:
    net = Net()
    net.conv(net.input("N", 2, 3, 3), 2, 4, name="a")
    net.op("Add", net.conv("a", 4, 2, name="b"), net.conv("a", 4, 2, name="c"), name="y")
    plan = Plan({"a.w": {0: KEPT}, "a": {1: KEPT}, "b.w": {1: KEPT}, "c.w": {1: KEPT}})
    reference = masked_reference(net.model().ir, plan)
    assert kinds(reference) == ["Conv", "Where", "Conv", "Conv", "Add"]


def test_both_activations_of_a_product_are_masked() -> None:
    net = Net()
    net.linear(net.input(1, 3, 2), 2, 4, name="a")
    net.op("Transpose", "a", name="t", perm=[0, 2, 1])
    net.op("MatMul", "a", "t", name="y")
    model = net.model()
    plan = Plan({"a.w": {1: KEPT}, "a": {2: KEPT}, "t": {1: KEPT}})
    reference = masked_reference(model.ir, plan)
    assert kinds(reference) == ["MatMul", "Transpose", "Where", "Where", "MatMul"]
    found = computed(reference, {"x": np.ones((1, 3, 2), np.float32)})
    kept = found["a"][..., KEPT]
    np.testing.assert_allclose(found["y"], kept @ kept.transpose(0, 2, 1), rtol=1e-5)


def test_a_computed_weight_of_a_grouped_convolution_is_masked_per_group() -> None:
    net = Net()
    net.conv(net.input(1, 3, 2, 2), 3, 4, name="a")
    w = net.op("Neg", net.weight(6, 2, 1, 1), name="w")
    net.op("Conv", "a", w, name="y", group=2)
    kept = np.array([True, False] * 2)
    plan = Plan({"a.w": {0: kept}, "a": {1: kept}, "w": {1: kept[:2]}})
    reference = masked_reference(net.model().ir, plan)
    assert kinds(reference) == ["Conv", "Neg", "Where", "Where", "Conv"]
    found = computed(reference, {"x": np.ones((1, 3, 2, 2), np.float32)})
    data = found["a"] * kept.reshape(1, -1, 1, 1)
    groups = zip(np.split(found["w"][:, :, 0, 0], 2), np.split(data, 2, axis=1), strict=True)
    expected = [np.einsum("mc,nchw->nmhw", filters, part) for filters, part in groups]
    np.testing.assert_allclose(found["y"], np.concatenate(expected, 1), rtol=1e-5)


def test_several_axes_of_a_sum_are_masked() -> None:
    net = Net()
    net.op("Neg", net.input(2, 4), name="a")
    net.op("ReduceSum", "a", net.ints(0, 1), name="y", keepdims=0)
    rows = np.array([False, True])
    found = computed(
        masked_reference(net.model().ir, Plan({"a": {0: rows, 1: KEPT}})),
        {"x": np.ones((2, 4), np.float32)},
    )
    assert found["y"] == -3


def test_integer_data_is_masked_by_an_integer_zero() -> None:
    net = Net()
    net.op("Neg", net.input(2, 4, dtype=TensorProto.INT64), name="a")
    net.op("ReduceSum", "a", net.ints(1), name="y")
    found = computed(
        masked_reference(net.model().ir, Plan({"a": {1: KEPT}})), {"x": np.ones((2, 4), np.int64)}
    )
    np.testing.assert_array_equal(found["y"], [[-3], [-3]])


def test_names_of_masks_avoid_those_in_use() -> None:
    net = Net()
    net.op("Relu", net.input(2, 4, name="r_kept"), name="r")
    net.linear("r", 4, 2, name="y")
    plan = Plan({"r": {1: KEPT}, "y.w": {0: KEPT}})
    names = [v.name for v in masked_reference(net.model().ir, plan).graph.initializers.values()]
    assert "r_kept_2" in names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": {0: KEPT}}, "the plan names tensor z, which the base lacks"),
        ({"r": {1: KEPT[:3]}}, "the plan has 3 positions on axis 1 of r"),
        ({"r": {2: KEPT}}, "the plan has 4 positions on axis 2 of r"),
        ({"r": {1: ~KEPT & KEPT}}, "the plan keeps different contracted positions of r and y.w"),
        ({"r": {}}, "the plan drops contracted positions of y.w but none of r"),
        ({"y.w": {}}, "the plan drops contracted positions of r but none of y.w"),
        ({"r": {1: KEPT[::-1]}}, "the plan keeps different contracted positions of r and y.w"),
    ],
)
def test_plans_that_do_not_fit(change: dict[str, dict[int, np.ndarray]], message: str) -> None:
    plan = chain_plan()
    plan.axes |= change
    with pytest.raises(IrpruneError) as caught:
        masked_reference(chain().ir, plan)
    assert message in str(caught.value)

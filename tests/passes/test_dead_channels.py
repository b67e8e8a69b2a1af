"""`dead-channels`: zeros and constants: what goes, what stays and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_nets import Example, counts, removed, select
from strategies import proto_of, seeds, value_of

from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.facts.bias import store
from irprune.frontends.onnx import load
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.dead_channels import DeadChannels
from irprune.passes.normalize import Normalize
from irprune.plan import Plan
from irprune.queries import constant_of
from irprune.roles import BUFFER, PARAMETER, TRAINED, Role, predecessors, roles
from irprune.shapes import infer
from irprune.structure import check


def test_zero_filters_vanish_through_normalisation_and_activation() -> None:
    net = Example()
    x = net.layer(net.input("N", 3, 8, 8), net.filters(6, 3, zero=(1, 4)), name="a")
    x = net.op("Relu", net.norm(x, np.ones(6), np.zeros(6)))
    net.layer(x, net.filters(4, 6), name="y")
    model = net.model()
    assert counts(select(model)) == {"zero": 2}
    assert removed(model, "a.w", 0) == [1, 4] == removed(model, "y.w", 1)


@pytest.mark.parametrize("bias", [True, False])
def test_constants_fold_into_the_bias_of_a_point_wise_convolution(bias: bool) -> None:
    net = Example()
    shift = [0.3, 0.7, -0.2, 0.1, 1.5, 0]
    x = net.layer(net.input("N", 3, 8, 8), net.filters(6, 3, zero=(1, 2, 4)), shift, "a")
    b = [1, 2, 3, 4] if bias else None
    net.layer(net.op("Relu", x), net.filters(4, 6, 1), b, "y")
    model = net.model()
    report = select(model)
    assert counts(report) == {"zero": 1, "constant": 2}
    assert report["edited"] == {"folded": 2, "merged": 0}
    assert removed(model, "a.w", 0) == [1, 2, 4]
    assert ("y.b" if bias else "y.Conv_bias") in model.ir.graph.initializers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("weight", "role"), [(TRAINED, Role.PARAMETER), (BUFFER, Role.CONSTANT)])
def test_a_bias_that_takes_constants_trains_where_its_layer_does(
    weight: str, role: Role, bias: bool
) -> None:
    net = Example()
    x = net.layer(net.input("N", 3, 8, 8), net.filters(6, 3, zero=(1,)), np.ones(6), "a")
    net.layer(net.op("Relu", x), net.filters(4, 6, 1), np.zeros(4) if bias else None, "y")
    model = net.model()
    initializers = model.ir.graph.initializers
    initializers["y.w"].metadata_props[PARAMETER] = weight
    initializers["a.w"].metadata_props[PARAMETER] = TRAINED
    select(model)
    name = "y.b" if bias else "y.Conv_bias"
    assert roles(model.ir.graph)[initializers[name]] is role
    assert predecessors(initializers[name]) == ([] if bias else ["y.w"])


def test_of_the_constants_that_meet_zero_padding_the_largest_carries_the_others() -> None:
    net = Example()
    x = net.layer(net.input("N", 3, 8, 8), net.filters(6, 3, zero=(1, 3, 4)), name="a")
    x = net.op("Relu", net.norm(x, np.zeros(6), [1, 0.5, -1, 2, 0.25, 3]))
    net.layer(x, net.filters(4, 6), np.ones(4), "y")
    model = net.model()
    report = select(model)
    assert counts(report) == {"zero": 1, "constant": 4}
    assert report["kept"] == {"it carries other constants through zero padding": 1}
    assert report["edited"] == {"folded": 0, "merged": 4}
    assert removed(model, "a.w", 0) == [0, 1, 2, 3, 4]


def test_a_small_constant_does_not_carry_a_much_larger_one() -> None:
    net = Example()
    w = net.filters(4, 3, zero=(0, 1, 2, 3))
    x = net.layer(net.input(1, 3, 8, 8), w, [1, 1e-5, 1e-5, 1], "a")
    net.layer(x, net.filters(4, 2), name="y", group=2)
    model = net.model()
    report = select(model)
    assert counts(report) == {} and report["kept"] == {"its constant meets zero padding": 2}


def test_one_constant_before_zero_padding_stays_and_says_so() -> None:
    net = Example()
    x = net.layer(net.input("N", 3, 8, 8), net.filters(6, 3, zero=(1,)), np.ones(6), "a")
    net.layer(x, net.filters(4, 6), name="y")
    model = net.model()
    report = select(model)
    assert counts(report) == {} and model.pending is None
    assert report["kept"] == {"its constant meets zero padding": 1}


def test_residual_sums_need_every_addend() -> None:
    net = Example()
    x = net.input(1, 3, 8, 8)
    a = net.layer(x, net.filters(6, 3, zero=(1, 2)), np.arange(6), "a")
    b = net.layer(x, net.filters(6, 3, zero=(2, 3)), np.arange(6), "b")
    net.layer(net.op("Relu", net.op("Add", a, b)), net.filters(4, 6, 1), name="y")
    model = net.model()
    assert counts(select(model)) == {"constant": 1}
    assert removed(model, "b.w", 0) == [2]


def test_concat_flatten_and_gemm() -> None:
    net = Example()
    x = net.input(2, 3, 4, 4)
    a = net.layer(x, net.filters(3, 3, zero=(0,)), [2, 0, 1], "a")
    b = net.layer(x, net.filters(3, 3, zero=(1,)), [0, 0, 0], "b")
    x = net.op("Flatten", net.op("MaxPool", net.op("Concat", a, b, axis=1), kernel_shape=[2, 2]))
    w, c = net.weight(5, 6 * 9, name="y.w"), net.constant(np.float32(1), "y.c")
    net.op("Gemm", x, w, c, name="y", transB=1, alpha=2.0, beta=0.5)
    model = net.model()
    assert counts(select(model)) == {"constant": 1, "zero": 1}
    assert removed(model, "a.w", 0) == [0] and removed(model, "b.w", 0) == [1]
    assert removed(model, "y.w", 1) == [*range(9), *range(36, 45)]


@pytest.mark.parametrize("form", ["bare", "bias", "shared", "output"])
def test_constants_before_a_matmul(form: str) -> None:
    net = Example()
    x = net.layer(net.input(2, 3, 4, 4), net.filters(4, 3, zero=(1,)), np.ones(4), "a")
    x = net.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    x = net.linear(x, 4, 5, "m")
    outputs = ["y"]
    if form in ("bias", "shared"):
        net.op("Add", net.weight(5, name="c"), x, name="y")
    if form == "bare":
        net.op("Relu", x, name="y")
    if form == "shared":
        net.op("Mul", x, "c", name="z")
        outputs = ["y", "z"]
    if form == "output":
        outputs = ["m"]
    model = net.model(*outputs)
    size = len(model.ir.graph)
    assert counts(select(model)) == {"constant": 1}
    assert len(model.ir.graph) == size + (form != "bias")
    assert [v.name for v in model.ir.graph.outputs] == outputs


def test_depthwise_convolutions_pass_zeros_and_constants_on() -> None:
    net = Example()
    x = net.layer(net.input(1, 3, 8, 8), net.filters(5, 3, zero=(0, 1)), [0, 1, 1, 1, 1], "a")
    x = net.layer(x, net.filters(5, 1, zero=(3,)), [3, 0, 0, 2, 0], "d", group=5)
    net.layer(x, net.filters(4, 5, 1), name="y")
    model = net.model()
    report = select(model)
    assert counts(report) == {"constant": 2}
    assert removed(model, "a.w", 0) == removed(model, "d.w", 0) == [0, 3]


def test_grouped_convolutions_need_the_same_index_in_every_group() -> None:
    net = Example()
    w = net.filters(6, 3, zero=(0, 2, 3))
    x = net.layer(net.input(1, 3, 8, 8), w, [1, 0, 0, 1, 0, 0], "a")
    net.layer(x, net.filters(4, 3, 1), name="y", group=2)
    model = net.model()
    report = select(model)
    assert counts(report) == {"constant": 1}
    assert report["kept"] == {"it is constant for some of its readers only": 1}
    assert removed(model, "a.w", 0) == [0, 3]


def test_transposed_convolutions_carry_constants() -> None:
    net = Example()
    x = net.layer(net.input(1, 3, 4, 4), net.filters(5, 3, zero=(0, 1, 2)), [1, 4, 0, 1, 1], "a")
    w = net.weight(5, 3, 2, 2, name="y.w")
    net.op("ConvTranspose", x, w, name="y", strides=[2, 2])
    model = net.model()
    assert counts(select(model)) == {"zero": 1, "constant": 1}
    assert removed(model, "a.w", 0) == [0, 2] == removed(model, "y.w", 0)


def test_graph_outputs_pin_constants() -> None:
    net = Example()
    x = net.layer(net.input(1, 3, 8, 8), net.filters(4, 3, zero=(1,)), name="p")
    net.layer(x, net.filters(2, 4), name="y")
    model = net.model("y", "p")
    report = select(model)
    assert counts(report) == {} and model.pending is None
    assert report["pinned"] == {"is part of a graph output at output p": 1}


def test_nothing_to_remove_changes_nothing() -> None:
    net = Example()
    x = net.layer(net.input(1, 3, 8, 8), net.filters(4, 3))
    net.layer(net.op("Relu", x), net.filters(2, 4), name="y")
    model = net.model()
    before = proto_of(model).SerializeToString(deterministic=True)
    report = select(model)
    assert counts(report) == {} and "edited" not in report
    assert proto_of(model).SerializeToString(deterministic=True) == before


def test_options_switch_parts_off() -> None:
    def model() -> Model:
        net = Example()
        w = net.filters(6, 3, zero=(1, 4))
        w[3] = w[0]
        x = net.layer(net.input(1, 3, 8, 8), w, [0, 0, 0, 0, 2, 0], "a")
        net.layer(x, net.filters(4, 6, 1), name="y")
        return net.model()

    assert counts(select(model(), constants=False)) == {"duplicate": 1}
    assert counts(select(model(), duplicates=False)) == {"zero": 1, "constant": 1}
    assert counts(select(model(), constants=False, duplicates=False)) == {}


def test_tolerance_sets_small_filters_and_scales_to_zero() -> None:
    net = Example()
    w = net.filters(6, 3)
    w[2] *= 1e-9
    x = net.layer(net.input(1, 3, 8, 8), w, name="a")
    x = net.op("Relu", net.norm(x, [1, 1e-9, 1, 1, 1, 1], np.full(6, -1e3)))
    net.layer(net.op("Mul", x, x), net.filters(4, 6), name="y")
    model = net.model()
    assert counts(DeadChannels().run(model.clone(), Context())) == {}
    report = DeadChannels(tolerance=1e-7).run(model, Context())
    assert report["zeroed"] == 2 and counts(report) == {"zero": 2}
    assert removed(model, "a.w", 0) == [1, 2]
    with pytest.raises(IrpruneError, match="negative"):
        DeadChannels(tolerance=-1.0)


def test_it_comes_before_prune() -> None:
    net = Example()
    net.layer(net.input(1, 3, 8, 8), net.filters(4, 3), name="y")
    model = net.model()
    model.pending = Plan.empty()
    with pytest.raises(IrpruneError, match="place `dead-channels` before"):
        DeadChannels().run(model, Context())


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_half_precision_stays_half_precision(dtype: ir.DataType) -> None:
    net = Example(opset=22)
    x = net.layer(net.input(1, 3, 8, 8), net.filters(6, 3, zero=(1, 2)), np.arange(6), "a")
    net.layer(net.op("Clip", x, "", net.constant(np.float32(1.5))), net.filters(4, 6, 1), name="y")
    model = net.model()
    graph = model.ir.graph
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.dtype = dtype
        if value.const_value is not None:
            numbers = value.const_value.numpy().astype(dtype.numpy())
            value.const_value = ir.Tensor(numbers, dtype=dtype, name=value.name)
    infer(model.ir)
    before = constant_of(value_of(model, model.ir.graph[2].inputs[1].name)).astype(np.float32)
    assert counts(DeadChannels().run(model, Context())) == {"constant": 2}
    check(model, Context())
    bias = value_of(model, "y.Conv_bias")
    assert bias.dtype == dtype
    expected = before[:, 1, 0, 0] + 1.5 * before[:, 2, 0, 0]
    np.testing.assert_allclose(bias.const_value.numpy().astype(np.float32), expected, 1e-2)


@given(seeds, st.booleans(), st.sampled_from([1, 2]), st.sampled_from(["Relu", "Sigmoid", "Elu"]))
def test_random_masked_networks(seed: int, residual: bool, group: int, activation: str) -> None:
    net = Example(seed=seed)
    random = net.random
    x = net.layer(net.input(1, 3, 6, 6), net.filters(6, 3))
    for index in range(3):
        w = net.filters(6, 6 // (group if index == 1 else 1), int(random.choice([1, 3])))
        w[random.random(6) < 0.4] = 0
        w[:, random.random(w.shape[1]) < 0.2] = 0
        w[random.integers(6)] = w[random.integers(6)]
        y = net.layer(x, w, random.integers(-1, 2, 6), group=group if index == 1 else 1)
        if random.random() < 0.5:
            y = net.op(activation, net.norm(y, random.integers(0, 2, 6), random.integers(-1, 2, 6)))
        x = net.op("Add", x, y) if residual and index else y
    net.layer(x, net.filters(4, 6), name="y")
    select(net.model())


@pytest.mark.shared
def test_a_masked_resnet_gives_back_the_plan_that_masked_it(shared: Path) -> None:
    model = load(shared / "models/onnx/resnet20_cifar10.onnx")
    Normalize().run(model, Context())
    channels = analyse(model.ir.graph)
    random = np.random.default_rng(0)
    dead = np.zeros(channels.count, np.bool_)
    for group in coupled_groups(channels):
        dead[random.choice(group.classes, len(group) // 3, replace=False)] = True
    producers = {(site.value, site.axis) for site in channels.producers}
    for value, axis, classes in channels.tensor_axes:
        array = constant_of(value)
        if array is not None and ((value, axis) in producers or array.ndim == 1):
            array = np.moveaxis(array.copy(), axis, 0)
            array[dead[classes]] = 0
            store(value, np.moveaxis(array, 0, axis))
    report = select(model)
    assert counts(report) == {"zero": int(dead.sum())}
    expected = channels.plan(~dead)
    assert model.pending is not None and model.pending.axes.keys() == expected.axes.keys()
    for name, masks in expected.axes.items():
        for axis, mask in masks.items():
            np.testing.assert_array_equal(model.pending.axes[name][axis], mask)

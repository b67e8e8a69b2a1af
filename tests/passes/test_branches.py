"""Emptied branches: what they still add stays, and nothing else of them does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from branch_nets import (
    Blocks,
    assert_clean,
    emptying,
    group_of,
    ops,
    proved,
    removed,
    weight,
    without,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import batches, proto_of, seeds, value_of

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.facts.remains import Remains
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import Compact, compact_graph
from irprune.plan import Plan
from irprune.roles import BUFFER, PARAMETER, TRAINED, Role, predecessors, roles


@pytest.fixture(scope="module")
def runner() -> Iterator[OrtRunner]:
    with OrtRunner() as found:
        yield found


def _net(*kinds: str, batch: int | str = "N", size: int | str = 4) -> Blocks:
    """Blocks named b0, b1, ... of 4 channels and 6 within; `head` follows, `y` is the output."""
    net = Blocks()
    x = net.relu(net.biased(net.input(batch, 3, size, size), 3, 4, 3, name="stem"), name="start")
    for k, kind in enumerate(kinds):
        x = net.block(x, kind, 4, 6, f"b{k}")
    net.biased(net.biased(x, 4, 5, name="head"), 5, 3, name="y")
    return net


# What is left of one branch


def test_a_branch_that_adds_zero_leaves_no_node(runner: OrtRunner) -> None:
    model = _net("plain").model()
    small = removed(model, emptying(model, "b0.w"), runner)
    assert ops(small) == ["Conv", "Relu", "Conv", "Conv"]
    assert small.ir.graph[2].inputs[0] is value_of(small, "start")


def test_a_constant_stays_as_one_number_per_channel(runner: OrtRunner) -> None:
    model = _net("basic").model()
    small = removed(model, emptying(model, "b0.w"), runner)
    assert ops(small) == ["Conv", "Relu", "Add", "Conv", "Conv"]
    (add,) = (node for node in small.ir.graph if node.op_type == "Add")
    constant = add.inputs[1]
    assert constant is not None and constant.shape == ir.Shape([1, 4, 1, 1])
    assert add.outputs[0].name == "b0.sum"


@pytest.mark.parametrize(
    ("branch", "role"), [(TRAINED, Role.PARAMETER), (BUFFER, Role.CONSTANT), (None, Role.CONSTANT)]
)
def test_a_constant_trains_where_what_it_was_computed_from_did(
    branch: str | None, role: Role
) -> None:
    model = _net("basic").model()
    graph = model.ir.graph
    (add,) = (node for node in graph if node.op_type == "Add")
    norm = add.inputs[1].producer()
    last = norm.inputs[0].producer()
    for name in ("stem.w", "b0.w", last.inputs[1].name):  # what the constant does not depend on
        graph.initializers[name].metadata_props[PARAMETER] = TRAINED
    if branch is not None:
        last.inputs[2].metadata_props[PARAMETER] = branch
    names = [value.name for value in (last.inputs[2], *norm.inputs[1:])]
    small = removed(model, emptying(model, "b0.w")).ir.graph
    (add,) = (node for node in small if node.op_type == "Add")
    assert roles(small)[add.inputs[1]] is role
    assert predecessors(add.inputs[1]) == names


def test_constants_of_successive_blocks_become_one(runner: OrtRunner) -> None:
    model = _net("basic", "inverted", "squeezed").model()
    small = removed(model, emptying(model, "b0.w", "b1.w", "b2.w"), runner)
    assert ops(small) == ["Conv", "Relu", "Add", "Conv", "Conv"]
    assert value_of(small, "b2.sum")


def _projected(shortcut: str) -> Model:
    """A basic block around which a projection of each kind leads."""
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    match shortcut:
        case "conv":
            other = net.biased(x, 4, 5, name="short")
        case "bare":
            other = net.conv(x, 4, 5, name="short")
        case "norm":
            other = net.norm(net.conv(x, 4, 5), 5, name="short")
        case _:
            kernel = net.weight(4, 5, 1, 1)
            other = net.op("ConvTranspose", x, kernel, net.weight(5), name="short")
    y = net.norm(net.biased(net.relu(net.biased(x, 4, 6, 3, name="b")), 6, 5, 3), 5)
    net.biased(net.op("Add", y, other, name="sum"), 5, 3, name="y")
    return net.model()


@pytest.mark.parametrize("shortcut", ["conv", "norm", "transposed"])
def test_the_bias_of_a_projection_takes_the_constant(shortcut: str, runner: OrtRunner) -> None:
    model = _projected(shortcut)
    small = removed(model, emptying(model, "b.w"), runner)
    assert "Add" not in ops(small)
    assert value_of(small, "sum").producer().name == value_of(model, "short").producer().name


def test_a_projection_without_bias_keeps_the_add(runner: OrtRunner) -> None:
    model = _projected("bare")
    assert "Add" in ops(removed(model, emptying(model, "b.w"), runner))


def test_a_bias_that_another_node_depends_on_stays_as_it_is(runner: OrtRunner) -> None:
    net = Blocks()
    x = net.biased(net.input("N", 3, 4, 4), 3, 4, name="stem")
    x = net.op("Mul", net.block(x, "basic", 4, 6, "b0"), x)
    net.biased(x, 4, 3, name="y")
    model = net.model()
    small = removed(model, emptying(model, "b0.w"), runner)
    assert ops(small) == ["Conv", "Add", "Mul", "Conv"]
    assert np.array_equal(weight(small, "stem.b"), weight(model, "stem.b"))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_subtracted_branches(order: tuple[int, int], runner: OrtRunner) -> None:
    net = Blocks()
    x = net.biased(net.input("N", 3, 4, 4), 3, 4, name="stem")
    operands = x, net.basic(net.relu(x), 4, 6, "b")
    net.biased(net.op("Sub", *(operands[k] for k in order)), 4, 3, name="y")
    model = net.model()
    small = removed(model, emptying(model, "b.w"), runner)
    assert ops(small) == (["Conv", "Conv"] if order == (0, 1) else ["Conv", "Sub", "Conv"])


def test_a_sum_of_many_loses_a_term(runner: OrtRunner) -> None:
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, name="stem"))
    terms = [x, net.plain(x, 4, 6, "a"), net.relu(net.biased(x, 4, 4, 3)), net.basic(x, 4, 6, "b")]
    net.biased(net.op("Sum", *terms), 4, 3, name="y")
    model = net.model()
    small = removed(model, emptying(model, "a.w", "b.w"), runner)
    (total,) = (node for node in small.ir.graph if node.op_type == "Sum")
    assert len(total.inputs) == 3


def test_a_gate_becomes_a_constant_factor(runner: OrtRunner) -> None:
    model = _net("squeezed").model()
    small = removed(model, emptying(model, "b0.gate.w"), runner)
    assert "GlobalAveragePool" not in ops(small) and "Sigmoid" not in ops(small)
    assert ops(small).count("Mul") == 2


def test_a_bias_that_an_exporter_fills_with_zeros(runner: OrtRunner) -> None:
    """Expand(CastLike(0, x)), as torch writes a convolution without bias."""
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    y = net.relu(net.biased(x, 4, 6, name="b"))
    zero = net.op("CastLike", net.constant(np.float32(0)), y)
    zeros = net.op("Expand", zero, net.ints(4))
    y = net.norm(net.op("Conv", y, net.weight(4, 6, 3, 3), zeros, pads=[1] * 4), 4)
    net.biased(net.op("Add", x, y), 4, 3, name="y")
    model = net.model()
    small = removed(model, emptying(model, "b.w"), runner)
    assert ops(small) == ["Conv", "Relu", "Add", "Conv"]


def test_a_part_of_a_concat_goes(runner: OrtRunner) -> None:
    """A dense block: the second layer's channels go, then those of all layers."""
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    for k in range(3):
        y = net.biased(net.relu(net.norm(x, 4 + 2 * k)), 4 + 2 * k, 3, name=f"narrow{k}")
        y = net.conv(net.relu(y), 3, 2, 3, 3, name=f"layer{k}", pads=[1] * 4)
        x = net.op("Concat", x, y, axis=1, name=f"joined{k}")
    net.biased(x, 10, 3, name="y")
    model = net.model()
    small = removed(model, emptying(model, "layer1.w"), runner)
    assert ops(small).count("Concat") == 2 and ops(small).count("Conv") == 6
    small = removed(model, emptying(model, *(f"layer{k}.w" for k in range(3))), runner)
    assert ops(small) == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_parts_of_a_split_go(opset: int, runner: OrtRunner) -> None:
    net = Blocks(opset)
    x = net.biased(net.input("N", 3, 4, 4), 3, 12, name="stem")
    more = {"num_outputs": 3} if opset >= 18 else {}
    parts = net.split("Split", x, names=["p", "q", "r"], axis=1, **more)
    ends = [net.conv(net.relu(part), 4, 2, name=f"c{k}") for k, part in enumerate(parts)]
    net.conv(net.op("Concat", *ends, axis=1), 6, 3, name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    for gone in ((0,), (1,), (0, 2)):
        keep = np.ones(channels.count, np.bool_)
        for k in gone:  # the part, and what is computed from it
            for name, axis in ((parts[k], 1), (f"c{k}", 1)):
                keep[channels.of(value_of(model, name))[axis]] = False
        small = removed(model, channels.plan(keep), runner)
        assert ops(small).count("Split") == (0 if len(gone) == 2 else 1)
        assert ops(small).count("Concat") == (0 if len(gone) == 2 else 1)


def test_outputs_keep_their_names(runner: OrtRunner) -> None:
    """The sum is an output, and so is what the branch is added to, or an input."""
    net = Blocks()
    x = net.input("N", 4, 4, 4)
    for k in range(2):
        x = net.op("Add", x, net.plain(x, 4, 6, f"b{k}"), name=f"s{k}")
    model = net.model("s0", "s1")
    small = removed(model, emptying(model, "b0.w"), runner)
    assert ops(small)[0] == "Identity"
    small = removed(model, emptying(model, "b1.w"), runner)
    assert ops(small)[-1] == "Identity" and "Add" in ops(small)
    channels = analyse(model.ir.graph)
    plan = channels.plan(without(channels, coupled_groups(channels)))
    small = removed(model, plan)
    assert ops(small) == ["Identity", "Identity"]
    assert proved(model, small, plan, runner).verdict == "inconclusive"  # no weight is left


def test_an_output_that_the_shortcut_can_make_needs_no_identity(runner: OrtRunner) -> None:
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, name="stem"))
    net.op("Add", net.plain(x, 4, 6, "b0"), x, name="y")
    model = net.model()
    small = removed(model, emptying(model, "b0.w"), runner)
    assert ops(small) == ["Conv", "Relu"]


def test_dynamic_sizes(runner: OrtRunner) -> None:
    model = _net("plain", "basic", size="S").model()
    small = removed(model, emptying(model, "b0.w", "b1.w"), runner)
    assert ops(small) == ["Conv", "Relu", "Add", "Conv", "Conv"]


def test_a_wrong_constant_is_noticed(runner: OrtRunner) -> None:
    model = _net("basic").model()
    plan = emptying(model, "b0.w")
    small = removed(model, plan)
    constant = value_of(small, "b0.sum").producer().inputs[1]
    numbers = constant.const_value.numpy()
    constant.const_value = ir.tensor(numbers * 1.01, name=constant.name)
    assert proved(model, small, plan, runner).verdict == "failed"


@pytest.mark.parametrize("kind", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
def test_half_precision(kind: ir.DataType, runner: OrtRunner) -> None:
    model = _net("basic", "plain", "squeezed").model()
    graph = model.ir.graph
    made = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *made):
        value.type = ir.TensorType(kind)
        if value.const_value is not None:
            array = value.const_value.numpy().astype(kind.numpy())
            value.const_value = ir.tensor(array, name=value.name)
    plan = emptying(model, "b0.w", "b1.w", "b2.w")
    small = model.clone()
    small.pending = plan
    Compact().run(small, Context())
    assert ops(small) == ["Conv", "Relu", "Cast", "Add", "Cast", "Add", "Conv", "Conv"]
    assert all(v.dtype == kind for node in small.ir.graph for v in node.outputs)
    proof = proved(model, small, plan, runner)
    assert proof.verdict == "proved", proof.reason


# Transformers


def _transformer(bias: bool = True, layers: int = 2) -> Model:
    net = Blocks()
    x = net.dense(net.input("N", "T", 3), 3, 8, "embed")
    for k in range(layers):
        x = net.op("Add", x, net.attention(x, 8, 4, f"a{k}", bias), name=f"mid{k}")
        x = net.op("Add", net.feedforward(x, 8, 10, f"f{k}", bias), x, name=f"out{k}")
    net.linear(x, 8, 3, name="y")
    return net.model()


def test_all_heads_and_inner_widths_go(runner: OrtRunner) -> None:
    model = _transformer()
    for parts in (["a0.v"], ["f1.up"], ["a0.v", "f0.up", "f1.up"]):
        weights = [f"{part}.product.w" for part in parts]
        small = removed(model, emptying(model, *weights, heads="whole"), runner)
        attentions = ops(small).count("Softmax")
        assert attentions == (2 if "a0.v" not in parts else 1)


def test_a_whole_transformer_goes(runner: OrtRunner) -> None:
    names = [f"{part}{k}" for part in ("a", "f") for k in range(2)]
    model = _transformer()
    weights = [f"{n}.{'v' if n[0] == 'a' else 'up'}.product.w" for n in names]
    small = removed(model, emptying(model, *weights, heads="whole"))
    assert ops(small) == ["MatMul", "Add", "MatMul"]
    model = _transformer(bias=False)
    weights = [f"{n}.{'v' if n[0] == 'a' else 'up'}.w" for n in names]
    small = removed(model, emptying(model, *weights, heads="whole"))
    assert ops(small) == ["MatMul", "Add", "MatMul"]


def test_inner_widths_of_values_take_the_attention_with_them(runner: OrtRunner) -> None:
    model = _transformer(layers=1)
    small = removed(model, emptying(model, "a0.v.product.w"), runner)
    assert "Softmax" not in ops(small) and ops(small).count("MatMul") == 4
    with pytest.raises(IrpruneError, match="cannot take it in"):
        compact_graph(model.clone().ir.graph, emptying(model, "a0.q.product.w"))


# Properties


@given(
    kinds=st.lists(st.sampled_from(Blocks.BRANCHES), min_size=1, max_size=4),
    batch=batches,
    seed=seeds,
)
def test_random_branches_go_or_are_refused(
    kinds: list[str], batch: int | str, seed: int, runner: OrtRunner
) -> None:
    """Random groups lose every class, and of the others random classes go."""
    random = np.random.default_rng(seed)
    model = _net(*kinds, batch=batch).model()
    channels = analyse(model.ir.graph)
    groups = coupled_groups(channels)
    gone = [group for group in groups if random.random() < 0.4]
    keep = without(channels, gone)
    for group in groups:
        for part in (group.classes[1:],) if group not in gone and random.random() < 0.3 else ():
            keep[part[random.random(len(part)) < 0.4]] = False
    plan = channels.plan(keep)
    if Remains(model.ir.graph, plan).obstacles:
        _refused(model, plan)
        return
    small = removed(model, plan, seed=seed)
    proof = proved(model, small, plan, runner)
    assert proof.verdict != "failed", proof.reason  # a dead Relu may hide the mutants


def _refused(model: Model, plan: Plan) -> None:
    before = proto_of(model)
    with pytest.raises(IrpruneError, match="the plan keeps no position of axis"):
        compact_graph(model.ir.graph, plan)
    assert proto_of(model) == before


@given(kind=st.sampled_from(Blocks.BRANCHES), seed=seeds)
def test_every_kind_of_branch_can_go(kind: str, seed: int) -> None:
    """All groups between stem and sum at once: the branch leaves at most one constant."""
    model = _net(kind, "basic").model()
    channels = analyse(model.ir.graph)
    groups = coupled_groups(channels)
    inner = [g for g in groups if g.name.startswith("b0") and not g.name.startswith("b0.end")]
    small = removed(model, channels.plan(without(channels, inner)), seed=seed)
    assert not any(name.startswith("b0.") and name != "b0.sum" for name in _names(small))
    assert ops(small).count("Add") <= 2


def _names(model: Model) -> list[str]:
    """Tensors that the base has too."""
    graph = proto_of(model).graph
    tensors = [*(t.name for t in graph.initializer), *(n for m in graph.node for n in m.output)]
    return [name for name in tensors if "constant" not in name]


# Plans


def test_plans_compose_over_removed_branches(runner: OrtRunner) -> None:
    """A second plan also names the constants that the first removal made; the base has none."""
    model = _net("basic", "basic").model()
    small = model.clone()
    for name in ("b0.w", "b1.w", "stem.w"):
        channels = analyse(small.ir.graph)
        group = group_of(coupled_groups(channels), name)
        keep = np.ones(channels.count, np.bool_)
        keep[group.classes if name != "stem.w" else group.classes[:2]] = False
        small.pending = channels.plan(keep)
        Compact().run(small, Context())
    assert small.plan is not None
    assert_clean(small)
    proof = proved(model, small, small.plan, runner)
    assert proof.verdict == "proved", proof.reason


def test_a_plan_file_says_that_nothing_is_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = _net("basic").model()
    plan = emptying(model, "b0.w")
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan.save(path)
    assert '"kept": []' in path.read_text()
    again = Plan.load(path)
    assert again.to_json() == plan.to_json()
    assert not again.axes["b0.w"][0].any()


def test_the_pass_reports_the_nodes_that_went() -> None:
    model = _net("basic").model()
    nodes = len(model.ir.graph)
    model.pending = emptying(model, "b0.w")
    report = Compact().run(model, Context())
    assert report["removed_nodes"] == nodes - len(model.ir.graph) == 5


# Refusals


@pytest.mark.parametrize(
    ("kinds", "weights", "message"),
    [
        ((), ["stem.w"], "output y would not depend on the input"),
        ((), ["head.w"], "output y would not depend on the input"),
        (("basic",), ["stem.w"], "output y would not depend on the input"),
        (("stacked",), ["b0.w"], r"\(Conv\) would read what became constant"),
        (("forked", "basic"), ["stem.w"], "output y would not depend on the input"),
    ],
)
def test_what_the_network_cannot_be_without(
    kinds: tuple[str, ...], weights: list[str], message: str
) -> None:
    model = _net(*kinds).model()
    before = proto_of(model)
    with pytest.raises(IrpruneError, match=message):
        compact_graph(model.ir.graph, emptying(model, *weights))
    assert proto_of(model) == before


def test_a_constant_part_of_a_concat_is_refused() -> None:
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    y = net.biased(net.relu(net.biased(x, 4, 3, name="narrow")), 3, 2, 3)
    net.biased(net.op("Concat", x, y, axis=1), 6, 3, name="y")
    model = net.model()
    with pytest.raises(IrpruneError, match=r"\(Concat\) would read what became constant"):
        compact_graph(model.ir.graph, emptying(model, "narrow.w"))


def test_a_shape_that_only_the_branch_has_is_refused() -> None:
    """What is added to it is stretched over the image by the branch alone."""
    net = Blocks()
    x = net.relu(net.biased(net.input("N", 3, 4, 4), 3, 4, 3, name="stem"))
    pooled = net.op("GlobalAveragePool", x)
    net.biased(net.op("Add", pooled, net.plain(x, 4, 6, "b")), 4, 3, name="y")
    model = net.model()
    with pytest.raises(IrpruneError, match=r"\(Add\) would read what became constant"):
        compact_graph(model.ir.graph, emptying(model, "b.w"))

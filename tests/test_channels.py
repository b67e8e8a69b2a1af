"""Channel classes of whole graphs: what is tied, what is pinned and why, and plans from classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from strategies import (
    Dim,
    Net,
    batches,
    check_equal,
    check_random_plan,
    compacted,
    random_keep,
    seeds,
    ties,
    value_of,
    why,
)

from irprune.analyses import ChannelClasses
from irprune.channels import analyse, pin_reasons
from irprune.errors import IrpruneError
from irprune.labelling import label
from irprune.passbase import Context
from irprune.walk import Heads, Walk


def _bottleneck(net: Net, batch: Dim = 1) -> None:
    """Convolutions with a residual sum, a depthwise filter, pooling and a classifier."""
    x = net.image(6, batch, name="a")
    y = net.op("Relu", net.conv(x, 6, 4, name="b"))
    y = net.conv(net.conv(y, 4, 4, 3, 3, name="d", group=4, pads=[1] * 4), 4, 6, name="e")
    y = net.op("GlobalAveragePool", net.op("Add", x, y))
    net.linear(net.op("Flatten", y), 6, 3, "y")


def _attention(net: Net, heads: int, width: int, batch: Dim = 1) -> None:
    """Multi-head attention with a fused projection, as torch exports it."""
    inner = heads * width
    x = net.tokens(5, batch, name="e")
    qkv = net.linear(x, 5, 3 * inner, "qkv")
    first = 0 if batch == "N" else int(batch)
    qkv = net.op("Reshape", qkv, net.ints(first, 3, 3, heads, width))
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.op("Gather", qkv, net.constant(np.int64(i)), axis=0) for i in range(3))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    mixed = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    out = net.op("Reshape", mixed, net.ints(0, -1, inner), name="m")
    x = net.op("Add", x, net.linear(out, inner, 5, "o"))
    net.linear(x, 5, 2, "y")


def test_sites_of_a_small_network() -> None:
    net = Net()
    _bottleneck(net)
    channels = analyse(net.model().ir.graph)
    made = [(s.value.name, s.axis) for s in channels.producers]
    summed = [(s.node.name, s.axis) for s in channels.contractions]
    assert made == [("a.w", 0), ("b.w", 0), ("e.w", 0), ("y.w", 1)]
    assert summed == [("a.Conv", 1), ("b.Conv", 1), ("e.Conv", 1), ("y.MatMul", 1)]


def test_the_residual_sum_ties_both_ends_of_a_block() -> None:
    net = Net()
    _bottleneck(net)
    rows = ties(net.model(), ("a.w", 0), ("b.w", 1), ("e.w", 0), ("y.w", 0))
    assert rows == [[1, 2, 3, 4, 5, 6]] * 4
    assert ties(net.model(), ("b.w", 0), ("d.w", 0), ("e.w", 1)) == [[1, 2, 3, 4]] * 3


@given(batch=batches, seed=seeds)
def test_a_residual_network_stays_exact(batch: Dim, seed: int) -> None:
    net = Net(seed=seed)
    _bottleneck(net, batch)
    check_random_plan(net.model(), seed)


@pytest.mark.parametrize(("heads", "width"), [(2, 3), (4, 2)])
def test_fused_attention_ties_the_same_index_of_every_head(heads: int, width: int) -> None:
    """The same index of every head, or whole heads; query, key and value go together."""
    net = Net()
    _attention(net, heads, width)
    model = net.model()
    row = list(range(1, width + 1)) * heads
    assert ties(model, ("qkv.w", 1), ("o.w", 0)) == [row * 3, row]
    whole = [head + 1 for head in range(heads) for _ in range(width)]
    assert ties(model, ("qkv.w", 1), ("o.w", 0), heads="whole") == [whole * 3, whole]


@given(
    heads=st.integers(1, 4),
    width=st.integers(1, 4),
    carry=st.sampled_from(["inner", "whole"]),
    batch=batches,
    seed=seeds,
)
def test_fused_attention_stays_exact(
    heads: int, width: int, carry: Heads, batch: Dim, seed: int
) -> None:
    net = Net(seed=seed)
    _attention(net, heads, width, batch)
    trial = check_random_plan(net.model(), seed, carry)
    if heads * width > 1:
        assert any(ties(trial.model, ("qkv.w", 1), heads=carry)[0])


# Pins and reasons


def test_an_op_without_a_rule_pins_all_that_it_touches() -> None:
    net = Net()
    x = net.image(3, "N")
    net.op("Bernoulli", x, name="c")
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert why(model, "p.w", 0) == "there is no rule for this op at c.Bernoulli (Bernoulli)"
    assert why(model, "y.w", 1) == "there is no rule for this op at c.Bernoulli (Bernoulli)"


def test_an_unknown_shape_pins_all_that_it_touches() -> None:
    net = Net()
    x = net.image(3)
    net.op("Reshape", x, net.input("R", name="s", dtype=TensorProto.INT64), name="c")
    net.op("Size", "c", name="y")
    assert why(net.model(), "p.w", 0) == "a shape is unknown at c.Reshape (Reshape)"


def test_what_a_control_flow_body_reads_stays() -> None:
    net = Net()
    x = net.image(3)
    bodies = {
        branch: helper.make_graph(
            [helper.make_node(kind, [x], [f"{branch}.out"])],
            branch,
            [],
            [helper.make_tensor_value_info(f"{branch}.out", TensorProto.FLOAT, [1, 3, 4, 4])],
        )
        for branch, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    net.op("If", net.constant(np.bool_(True)), name="c", **bodies)
    net.consume(x, 4, 1, 3)
    net.conv("c", 3, 4, name="q")
    net.conv("q", 4, 2, name="z")
    model = net.model("y", "z")
    assert why(model, "p.w", 0) == "is read inside a control flow body at c.If (If)"
    assert why(model, "q.w", 1) == "control flow bodies are not analysed at c.If (If)"
    assert ties(model, ("q.w", 0)) == [[1, 2, 3, 4]]


def test_a_graph_output_pins_its_channels_and_their_peers() -> None:
    net = Net()
    x = net.image(3)
    net.op("Add", x, net.conv(x, 3, 3, name="q"), name="c")
    model = net.model("c")
    assert why(model, "p.w", 0) == "is part of a graph output at output c"
    assert why(model, "q.w", 0) == "is part of a graph output at output c"


def test_graph_input_channels_are_told_from_other_pins() -> None:
    net = Net()
    net.op("Concat", net.input(1, 2, 4, 4), net.image(3), name="c", axis=1)
    net.consume("c", 4, 1, 5)
    channels = analyse(net.model().ir.graph)
    first, second = channels.contractions
    assert channels.from_input(first).tolist() == [True, True]
    assert channels.from_input(second).tolist() == [True, True, False, False, False]
    assert pin_reasons(channels, channels.contractions) == {"is part of a graph input": 4}


def test_axes_that_disagree_are_refused() -> None:
    net = Net()
    net.op("Add", net.image(3), net.weight(4, 1, 1, name="k"), name="c")
    proto_error = "Incompatible dimensions|cannot be tied"
    with pytest.raises(Exception, match=proto_error):
        analyse(net.model("c").ir.graph)
    net = Net()
    net.op("Relu", net.image(3), name="c")
    model = net.model("c")
    value_of(model, "c").shape = value_of(model, "p.x").shape
    with pytest.raises(IrpruneError, match="axis 1 of c has 2 positions, its inputs imply 3"):
        analyse(model.ir.graph)


def test_a_shared_weight_ties_its_users() -> None:
    net = Net()
    w = net.weight(4, 2, 1, 1, name="w")
    net.op("Conv", net.input(1, 2, 4, 4, name="l"), w, name="a")
    net.op("Conv", net.input(1, 2, 4, 4, name="r"), w, name="b")
    net.conv("a", 4, 2, name="y")
    net.conv("b", 4, 2, name="z")
    assert ties(net.model("y", "z"), ("y.w", 1), ("z.w", 1)) == [[1, 2, 3, 4]] * 2


# Plans from classes


@given(seed=seeds)
def test_a_plan_remembers_the_kept_classes(seed: int) -> None:
    net = Net(seed=seed)
    _bottleneck(net)
    channels = analyse(net.model().ir.graph)
    keep = random_keep(channels, seed)
    plan = channels.plan(keep)
    used = np.unique(np.concatenate([c for _, _, c in channels.tensor_axes]))
    assert np.array_equal(channels.keep_of(plan)[used], keep[used])
    lengths = channels.lengths(keep)
    for (value, axis), number in channels.unique_axes[2].items():
        mask = plan.axes.get(value.name or "", {}).get(axis)
        full = len(channels.of(value)[axis])  # type: ignore[arg-type]
        assert lengths[number] == (full if mask is None else mask.sum())


def test_keeping_everything_is_the_empty_plan() -> None:
    net = Net()
    _bottleneck(net)
    channels = analyse(net.model().ir.graph)
    assert not channels.plan(np.ones(channels.count, np.bool_))


@given(seed=seeds)
def test_two_plans_in_a_row_equal_their_composition(seed: int) -> None:
    net = Net(seed=seed)
    _bottleneck(net)
    model = net.model()
    first = check_random_plan(model, seed)
    second = check_random_plan(first.small, seed + 1)
    whole = first.plan.then(second.plan)
    check_equal(model, second.small, whole, seed)
    check_equal(model, compacted(model, whole), whole, seed)


def test_the_analysis_is_cached_under_its_option() -> None:
    net = Net()
    _bottleneck(net)
    model, context = net.model(), Context()
    inner = context.get(ChannelClasses(), model)
    assert context.get(ChannelClasses("inner"), model) is inner
    assert context.get(ChannelClasses("whole"), model) is not inner


def test_the_reason_of_spatial_positions_is_their_own() -> None:
    """They share a class with all other pinned positions, whose reasons are not theirs."""
    net = Net()
    x = net.conv(net.image(3), 3, 4, 3, 3, name="q")
    x = net.op("Transpose", x, perm=[0, 2, 3, 1], name="t")
    x = net.op("Mul", x, net.weight(2, 2, 1, name="map.w"), name="m")
    net.consume(net.op("Softmax", x, axis=-1), 4, 3, 4)
    model = net.model()
    unmade = "positions that no parameter makes, as spatial ones are"
    assert why(model, "t", 1) == f"holds {unmade}"
    assert why(model, "map.w", 0) == f"meets {unmade} at m.Mul (Mul)"
    assert why(model, "m", 3).startswith("is normalised by Softmax")


def test_a_choice_that_cannot_be_bettered_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of two merged axes is pinned where it carries the channels, the other seems free."""
    net = Net()
    x = net.op("MatMul", net.weight(3, 2, name="rows"), net.input("N", 2, 2))
    x = net.op("MatMul", x, net.weight(2, 4, name="columns"))
    net.op("Reshape", x, net.ints(0, 12), name="y")
    walks: list[Walk] = []

    def labelled(walk: Walk) -> Walk:
        walks.append(walk)
        return label(walk)

    monkeypatch.setattr("irprune.channels.label", labelled)
    channels = analyse(net.model().ir.graph)
    assert [set(walk.choices.values()) for walk in walks] == [set(), {0}, {0}]
    assert channels.walk is walks[-1] and not channels.tensor_axes

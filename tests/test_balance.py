"""Balanced removal: rows that lose equally many channels, whichever these are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Net, Trial, check_equal, check_random_plan, compacted, seeds, value_of

from irprune.balance import settled
from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.labels import UnionFind
from irprune.model import Model
from irprune.plan import Balanced, Plan, count

Rows = list[list[int]]


def _settled(*constraints: Rows, ties: Rows = (), pinned: int = 1) -> tuple[list[int], list[Rows]]:
    union_find = UnionFind(pinned)
    union_find.fresh(64)
    for left, right in ties:
        union_find.union(np.array([left]), np.array([right]))
    tangled, cells = settled(union_find, [np.array(rows) for rows in constraints])
    return tangled, [sorted(map(sorted, found.tolist())) for found in cells]


def test_independent_rows_are_cells() -> None:
    assert _settled([[1, 2], [3, 4]]) == ([], [[[1, 2], [3, 4]]])


def test_equal_rows_ask_for_nothing() -> None:
    assert _settled([[1, 2], [3, 4]], ties=[[1, 3], [2, 4]]) == ([], [])
    assert _settled([[1, 2], [3, 4]], ties=[[1, 4], [2, 3]]) == ([], [])
    assert _settled([[1, 2], [3, 4]], ties=[[0, 1], [0, 2], [0, 3], [0, 4]]) == ([], [])


def test_a_class_in_two_rows_tangles_them() -> None:
    assert _settled([[1, 2], [3, 4], [5, 6]], ties=[[1, 3]])[0] == [0]


def test_a_class_in_every_row_takes_no_part() -> None:
    """As often in one as in another: where it goes, all lose equally many."""
    assert _settled([[1, 2, 3], [1, 4, 5]]) == ([], [[[2, 3], [4, 5]]])
    assert _settled([[1, 1, 2], [1, 3, 3]])[0] == [0]


def test_rows_with_unequally_many_pinned_positions_are_tied() -> None:
    assert _settled([[1, 2], [3, 4]], ties=[[0, 1]])[0] == [0]
    assert _settled([[1, 2], [3, 4]], ties=[[0, 1], [0, 4]]) == ([], [[[2], [3]]])


def test_constraints_across_each_other_meet_in_cells() -> None:
    """Rows of 4 and columns of 2 of the same eight channels: the cells are their crossings."""
    rows = [[1, 2, 3, 4], [5, 6, 7, 8]]
    columns = [[1, 2, 5, 6], [3, 4, 7, 8]]
    assert _settled(rows, columns) == ([], [[[1, 2], [3, 4], [5, 6], [7, 8]]])


def test_constraints_that_do_not_fit_each_other_are_tied() -> None:
    assert sorted(_settled([[1, 2, 3], [4, 5, 6]], [[1, 2], [3, 4]])[0]) == [0, 1]


def _grouped(groups: int, width: int, made: int, depth: int = 1) -> Model:
    net = Net()
    x = net.image(groups * width, name="a")
    for k in range(depth):
        inner = groups * (width if k == 0 else made)
        x = net.conv(x, inner, groups * made, 3, 3, name=f"g{k}", group=groups, pads=[1] * 4)
        x = net.op("Relu", x)
    net.consume(x, 4, 1, groups * made)
    return net.model()


@given(
    seed=seeds,
    groups=st.integers(2, 4),
    width=st.integers(2, 5),
    made=st.integers(1, 4),
    depth=st.integers(1, 3),
)
def test_groups_of_convolutions_lose_different_channels(
    seed: int, groups: int, width: int, made: int, depth: int
) -> None:
    check_random_plan(_grouped(groups, width, made, depth), seed)


@given(seed=seeds, groups=st.integers(2, 4), width=st.integers(2, 4), made=st.integers(2, 4))
def test_groups_of_transposed_convolutions_lose_different_channels(
    seed: int, groups: int, width: int, made: int
) -> None:
    net = Net()
    x = net.image(groups * width, name="a")
    w = net.weight(groups * width, made, 2, 2, name="t.w")
    net.op("ConvTranspose", x, w, name="t", group=groups)
    net.consume("t", 4, 1, groups * made)
    check_random_plan(net.model(), seed)


def _keep(model: Model, tensor: str, axis: int, dropped: list[int]) -> Trial:
    """Drop the classes at positions of an axis."""
    channels = analyse(model.ir.graph)
    keep = np.ones(channels.count, np.bool_)
    classes = channels.of(value_of(model, tensor))[axis]
    assert classes is not None
    keep[classes[dropped]] = False
    plan = channels.plan(keep)
    small = compacted(model, plan)
    check_equal(model, small, plan, 0)
    return Trial(model, channels, plan, small)


def test_the_weight_of_a_grouped_convolution_keeps_rows() -> None:
    plan = _keep(_grouped(2, 3, 2), "a.w", 0, [0, 5]).plan
    kept = plan.axes["g0.w"][1]
    assert isinstance(kept, Balanced)
    assert kept.per == (0,)
    first, second = [False, True, True], [True, True, False]
    assert kept.rows.tolist() == [first, first, second, second]
    assert json.loads(json.dumps(plan.to_json()))["axes"]["g0.w"]["1"] == {
        "size": 3,
        "per": 0,
        "kept": [[[1, 3]], [[1, 3]], [[0, 2]], [[0, 2]]],
    }


def test_tied_indices_need_no_rows() -> None:
    plan = _keep(_grouped(2, 3, 2), "a.w", 0, [1, 4]).plan
    assert not isinstance(plan.axes["g0.w"][1], Balanced)


def _attention(heads: int, width: int, fused: str) -> Model:
    """Self-attention whose projections are separate, or fused and taken apart by an op."""
    net = Net()
    size = heads * width
    x = net.tokens(4, length=5, name="in")
    if fused:
        qkv = net.linear(x, 4, 3 * size, name="qkv")
        if fused == "Squeeze":
            shaped = net.op("Reshape", qkv, net.ints(1, 5, 3, heads, width))
            parts = net.split("Split", shaped, net.ints(1, 1, 1), names=list("abc"), axis=2)
            q, k, v = (net.op("Squeeze", p, net.ints(2)) for p in parts)
        elif fused == "Split":
            parts = net.split("Split", qkv, net.ints(size, size, size), names=list("abc"), axis=2)
            q, k, v = (net.op("Reshape", p, net.ints(0, 0, heads, width)) for p in parts)
        else:
            shaped = net.op("Reshape", qkv, net.ints(1, 5, 3, heads, width))
            front = net.op("Transpose", shaped, perm=[2, 0, 1, 3, 4])
            q, k, v = (net.op("Gather", front, net.constant(np.int64(i))) for i in range(3))
    else:
        parts = [net.linear(x, 4, size, name=n) for n in "qkv"]
        q, k, v = (net.op("Reshape", p, net.ints(0, 0, heads, width)) for p in parts)
    q, v = (net.op("Transpose", p, perm=[0, 2, 1, 3]) for p in (q, v))
    k = net.op("Transpose", k, perm=[0, 2, 3, 1])
    scores = net.op("Softmax", net.op("Mul", net.op("MatMul", q, k), net.constant(np.float32(0.5))))
    mixed = net.op("Transpose", net.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    merged = net.op("Reshape", mixed, net.ints(0, 0, size), name="merged")
    net.linear(merged, size, 4, name="y")
    return net.model()


@given(
    seed=seeds,
    heads=st.integers(1, 4),
    width=st.integers(2, 5),
    fused=st.sampled_from(["", "Split", "Gather", "Squeeze"]),
)
def test_heads_lose_different_widths(seed: int, heads: int, width: int, fused: str) -> None:
    check_random_plan(_attention(heads, width, fused), seed)


@given(seed=seeds, heads=st.integers(2, 4), width=st.integers(2, 5))
def test_whole_heads_go(seed: int, heads: int, width: int) -> None:
    check_random_plan(_attention(heads, width, ""), seed, heads="whole")


def test_queries_and_keys_of_a_head_go_together_but_heads_differ() -> None:
    model = _attention(2, 3, "")
    plan = _keep(model, "q.w", 1, [0, 4]).plan
    assert [count(plan.axes[name][1]) for name in ("q.w", "k.w")] == [4, 4]
    assert "v.w" not in plan.axes
    plan = _keep(model, "v.w", 1, [2, 3]).plan
    assert set(plan.axes) & {"q.w", "k.w", "v.w", "y.w"} == {"v.w", "y.w"}


def test_a_fused_projection_keeps_as_many_values_as_queries() -> None:
    groups = coupled_groups(analyse(_attention(2, 3, "Gather").ir.graph))
    assert [(g.rows, len(g)) for g in groups if g.name == "qkv.w"] == [(4, 12)]
    groups = coupled_groups(analyse(_attention(2, 3, "Split").ir.graph))
    assert [(g.rows, len(g)) for g in groups if g.name == "qkv.w"] == [(2, 6), (2, 6)]


@given(seed=seeds, groups=st.integers(2, 3), width=st.integers(2, 4))
def test_a_channel_shuffle_ties(seed: int, groups: int, width: int) -> None:
    """The order of what stays must be that of the base, so the same index of each group goes."""
    net = Net()
    size = groups * width
    x = net.image(size, name="a")
    x = net.op("Reshape", x, net.ints(1, groups, width, 4, 4))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = net.op("Reshape", x, net.ints(1, size, 4, 4), name="shuffled")
    net.consume(x, 4, 1, size)
    trial = check_random_plan(net.model(), seed)
    assert not any(
        isinstance(k, Balanced) for axes in trial.plan.axes.values() for k in axes.values()
    )


@given(seed=seeds, heads=st.integers(2, 3), width=st.integers(2, 4))
def test_rotated_halves_of_heads(seed: int, heads: int, width: int) -> None:
    """Rotary embedding by slices: the halves of a head's width lose equally many."""
    net = Net()
    size = 2 * heads * width
    x = net.op("Reshape", net.tokens(size, length=3, name="a"), net.ints(0, 0, heads, 2 * width))
    half = [
        net.op("Slice", x, net.ints(a), net.ints(b), net.ints(3))
        for a, b in ((0, width), (width, 2 * width))
    ]
    turned = net.op("Concat", net.op("Neg", half[1]), half[0], axis=3)
    x = net.op(
        "Add", net.op("Mul", x, net.weight(3, 1, 1)), net.op("Mul", turned, net.weight(3, 1, 1))
    )
    net.consume(net.op("Reshape", x, net.ints(0, 0, size)), 3, 2, size)
    check_random_plan(net.model(), seed)


@given(seed=seeds)
def test_plans_with_rows_compose(seed: int) -> None:
    """Two prunings one after the other are one plan over the first graph."""
    model = _grouped(3, 6, 6, 2)
    first = check_random_plan(model, seed)
    second = check_random_plan(first.small, seed + 1)
    both = first.plan.then(second.plan)
    check_equal(model, compacted(model, both), both, seed)
    read = Plan.from_json(json.loads(json.dumps(both.to_json())))
    check_equal(model, compacted(model, read), read, seed)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"size": 3, "per": 0, "kept": [[[0, 2]], [[0, 1]]]}, "the rows keep 1 to 2 positions"),
        ({"size": 3, "per": [1, 0], "kept": [[[0, 2]]], "rows": [1, 1]}, "per"),
        ({"size": 3, "per": [0, 1], "kept": [[[0, 2]]], "rows": [2, 1]}, "1 rows per"),
        ({"size": 3, "per": -1, "kept": [[[0, 2]]]}, "per -1"),
    ],
)
def test_malformed_rows_are_refused(entry: dict[str, object], reason: str) -> None:
    from irprune.errors import IrpruneError

    data = Plan().to_json() | {"axes": {"w": {"1": entry}}}
    with pytest.raises(IrpruneError, match=reason):
        Plan.from_json(data)

"""Attention and RotaryEmbedding: heads and widths are removable, on ranks 3 and 4."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from strategies import (
    Dim,
    Net,
    Trial,
    batches,
    check_random_plan,
    macs,
    seeds,
    ties,
    value_of,
    why,
)

from irprune.walk import Heads

both_heads = st.sampled_from(["inner", "whole"])


def _node(trial: Trial, kind: str) -> dict[str, float]:
    """The attributes of the only node of a kind, after compaction."""
    (node,) = (n for n in trial.small.ir.graph if n.op_type == kind)
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _flat(
    net: Net, kv: int, group: int, width: int, batch: Dim = 1, outputs: int = 1, **attributes: float
) -> str:
    """Projections to rank 3, with values one wider than keys, and an output projection."""
    heads = kv * group
    x = net.input(batch, 3, 2)
    q, k = net.linear(x, 2, heads * width, "q"), net.linear(x, 2, kv * width, "k")
    v = net.linear(x, 2, kv * (width + 1), "v")
    names = ["c", "key", "value", "scores"][:outputs]
    sizes = {"q_num_heads": heads, "kv_num_heads": kv, **attributes}
    net.split("Attention", q, k, v, names=names, **sizes)
    return net.linear("c", heads * (width + 1), 2, "y")


def test_whole_heads_go_with_the_rows_of_the_output_projection() -> None:
    net = Net(23)
    _flat(net, 2, 1, 2)
    rows = ties(net.model(), ("q.w", 1), ("k.w", 1), ("v.w", 1), ("y.w", 0), heads="whole")
    assert rows == [[1, 1, 2, 2]] * 2 + [[1, 1, 1, 2, 2, 2]] * 2


def test_a_kv_head_goes_with_its_query_heads() -> None:
    net = Net(23)
    _flat(net, 2, 2, 1)
    rows = ties(net.model(), ("q.w", 1), ("k.w", 1), ("y.w", 0), heads="whole")
    assert rows == [[1, 1, 2, 2], [1, 2], [1, 1, 1, 1, 2, 2, 2, 2]]


def test_inside_heads_q_and_k_go_together_and_v_alone() -> None:
    net = Net(23)
    _flat(net, 2, 1, 2)
    rows = ties(net.model(), ("q.w", 1), ("k.w", 1), ("v.w", 1), ("y.w", 0))
    assert rows == [[1, 2, 1, 2]] * 2 + [[3, 4, 5, 3, 4, 5]] * 2


def test_macs() -> None:
    net = Net(23)
    _flat(net, 2, 2, 5)
    assert macs(net.model()) == 3 * 2 * (20 + 10 + 12 + 24 * 1) + 3 * 3 * (20 + 24)


@given(
    kv=st.integers(1, 3),
    group=st.integers(1, 2),
    width=st.integers(2, 4),
    heads=both_heads,
    batch=batches,
    scaled=st.booleans(),
    causal=st.booleans(),
    opset=st.sampled_from([23, 24]),
    seed=seeds,
)
def test_rank_3_stays_exact(
    kv: int,
    group: int,
    width: int,
    heads: Heads,
    batch: Dim,
    scaled: bool,
    causal: bool,
    opset: int,
    seed: int,
) -> None:
    net = Net(opset, seed)
    scale = {"scale": 0.3} if scaled else {}
    _flat(net, kv, group, width, batch, is_causal=int(causal), **scale)
    trial = check_random_plan(net.model(), seed, heads)
    free = ties(trial.model, ("q.w", 1), ("k.w", 1), ("v.w", 1), heads=heads)
    assert all(all(row) for row in free) or (heads == "whole" and kv == 1)
    found = _node(trial, "Attention")
    assert found["q_num_heads"] == group * found["kv_num_heads"]
    if trial.removed("q.w", 1):
        assert found["scale"] == pytest.approx(0.3 if scaled else 1 / sqrt(width))
    if heads == "whole" and kv > 1:
        assert found["kv_num_heads"] == kv - trial.removed("k.w", 1) // width


@given(
    kv=st.integers(1, 3),
    group=st.integers(1, 2),
    width=st.integers(1, 4),
    mask=st.sampled_from([(), (3, 3), (1, 3, 3), ("heads", 3, 3), (1, "heads", 3, 3)]),
    batch=batches,
    seed=seeds,
)
def test_rank_4_stays_exact(
    kv: int, group: int, width: int, mask: tuple[int | str, ...], batch: Dim, seed: int
) -> None:
    net = Net(23, seed)
    x = net.input(batch, 2, 3, 2)
    few = net.conv(x, 2, kv, name="few")
    q = net.linear(net.conv(x, 2, kv * group, name="many"), 2, width, "q")
    k, v = net.linear(few, 2, width, "k"), net.linear(few, 2, width + 1, "v")
    shape = [kv * group if d == "heads" else int(d) for d in mask]
    extra = [net.weight(*shape, name="mask")] if mask else []
    net.op("Attention", q, k, v, *extra, name="c")
    net.consume(net.linear("c", width + 1, 3, "z"), 4, 1, kv * group)
    trial = check_random_plan(net.model(), seed)
    rows = ties(trial.model, ("q.w", 1), ("k.w", 1), ("v.w", 1), ("few.w", 0), ("many.w", 0))
    assert all(all(row) for row in rows)
    assert rows[0] == rows[1]
    assert rows[4] == [c for c in rows[3] for _ in range(group)]
    if "heads" in mask:
        assert ties(trial.model, ("mask", len(mask) - 3), ("many.w", 0))[0] == [
            k // group + 1 for k in range(kv * group)
        ]
    if trial.removed("q.w", 1):
        assert _node(trial, "Attention")["scale"] == pytest.approx(1 / sqrt(width))


def _transposed(net: Net, x: str, heads: int, width: int, name: str) -> str:
    """A projection of rank 3, its heads put before the places."""
    x = net.op("Reshape", net.linear(x, 2, heads * width, name), net.ints(0, 3, heads, width))
    return net.op("Transpose", x, perm=[0, 2, 1, 3])


@given(
    rank=st.sampled_from([3, 4]),
    kv=st.integers(2, 3),
    group=st.integers(1, 2),
    width=st.integers(2, 4),
    batch=batches,
    seed=seeds,
)
def test_heads_lose_equally_many_widths_not_the_same_ones(
    rank: int, kv: int, group: int, width: int, batch: Dim, seed: int
) -> None:
    net, heads = Net(23, seed), kv * group
    if rank == 3:
        _flat(net, kv, group, width, batch)
        made = width + 1
    else:
        x, made = net.input(batch, 3, 2), width
        q = _transposed(net, x, heads, width, "q")
        k, v = (_transposed(net, x, kv, width, name) for name in "kv")
        z = net.op("Transpose", net.op("Attention", q, k, v), perm=[0, 2, 1, 3])
        net.linear(net.op("Reshape", z, net.ints(0, 3, heads * width)), heads * width, 2, "y")
    trial = check_random_plan(net.model(), seed)
    classes = {n: trial.channels.of(value_of(trial.model, f"{n}.w"))[n != "y"] for n in "qkvy"}
    shared = [np.repeat(classes[n].reshape(kv, -1), group, axis=0).ravel() for n in "kv"]
    assert len(set(classes["k"])) == kv * width
    assert len(set(classes["v"])) == kv * made
    assert [*classes["q"]] == [*shared[0]]
    assert [*classes["y"]] == [*shared[1]]


@given(heads=both_heads, kv=st.integers(2, 3), width=st.integers(2, 3), seed=seeds)
def test_scores_and_caches_stay_exact(heads: Heads, kv: int, width: int, seed: int) -> None:
    """Keys and values of before are activations too; all four outputs are read."""
    net = Net(23, seed)
    x = net.input(1, 3, 2)
    q, k = net.linear(x, 2, kv * width, "q"), net.linear(x, 2, kv * width, "k")
    v = net.linear(x, 2, kv * width, "v")
    past = []
    for name in ("pk", "pv"):
        before = net.linear(net.input(1, 4, 2, name=f"{name}.x"), 2, kv * width, name)
        before = net.op("Reshape", before, net.ints(1, 4, kv, width))
        past.append(net.op("Transpose", before, perm=[0, 2, 1, 3]))
    names = ["c", "key", "value", "scores"]
    sizes = {"q_num_heads": kv, "kv_num_heads": kv}
    net.split("Attention", q, k, v, "", *past, names=names, **sizes)
    net.linear("c", kv * width, 2, "y")
    for name in names[1:]:
        net.axes_op("ReduceSum", name, [1, 3], since=13, name=f"{name}.sum")
    trial = check_random_plan(net.model("y", *(f"{n}.sum" for n in names[1:3])), seed, heads)
    rows = ties(
        trial.model, ("q.w", 1), ("k.w", 1), ("v.w", 1), ("pk.w", 1), ("pv.w", 1), heads=heads
    )
    assert all(all(row) for row in rows)
    assert rows[1] == rows[3]
    assert rows[2] == rows[4]
    assert not any(ties(trial.model, ("scores", 3), heads=heads)[0])


def test_an_unknown_number_of_heads_pins() -> None:
    net = Net(23)
    k, v = (net.linear(net.input(1, 3, 2, name=f"{n}.x"), 2, 4, n) for n in "kv")
    net.op("Attention", net.input(1, 3, "W"), k, v, name="y", q_num_heads=2, kv_num_heads=2)
    reason = "the number of heads or the width is unknown"
    assert why(net.model(), "k.w", 1).startswith(reason)


@given(
    rank=st.sampled_from([3, 4]),
    count=st.integers(1, 3),
    pairs=st.integers(1, 3),
    rest=st.integers(0, 2),
    interleaved=st.booleans(),
    indexed=st.booleans(),
    heads=both_heads,
    seed=seeds,
)
def test_rotations_stay_exact(
    rank: int,
    count: int,
    pairs: int,
    rest: int,
    interleaved: bool,
    indexed: bool,
    heads: Heads,
    seed: int,
) -> None:
    width = 2 * pairs + rest
    net = Net(23, seed)
    attributes = {"interleaved": int(interleaved), "num_heads": count}
    if rest:
        attributes["rotary_embedding_dim"] = 2 * pairs
    x = net.tokens(count * width if rank == 3 else width, *((count, 3) if rank == 4 else (1, 3)))
    if rank == 4:
        x = net.op("Unsqueeze", x, net.ints(0))
    shape = (5, pairs) if indexed else (1, 3, pairs)
    angles = [net.weight(*shape, name=n) for n in ("cos", "sin")]
    if indexed:
        angles.append(net.input(1, 3, name="ids", dtype=TensorProto.INT64))
    net.op("RotaryEmbedding", x, *angles, name="c", **attributes)
    net.consume("c", rank, rank - 1, count * width if rank == 3 else width)
    trial = check_random_plan(net.model(), seed, heads)
    (row,) = ties(trial.model, ("p.w", 1), heads=heads)
    if rank == 4 or heads == "inner" or count == 1:
        first = list(range(pairs))
        order = sorted(2 * first) if interleaved else 2 * first
        order += range(pairs, pairs + rest)
        assert row == [k + 1 for k in order] * (count if rank == 3 else 1)
        free = trial.channels.of(value_of(trial.model, "p.w"))[1]
        assert len(np.unique(free)) == pairs + rest * (count if rank == 3 else 1)
        last = len(shape) - 1
        cos, sin = ties(trial.model, ("cos", last), ("sin", last))
        assert cos == sin == [k + 1 for k in first]
    elif count > 1:
        assert row == [k + 1 for k in range(count) for _ in range(width)]
        assert not any(ties(trial.model, ("cos", len(shape) - 1), heads=heads)[0])

"""Reductions: a sum contracts, other statistics keep what they reduce unless they are allowed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from norm_nets import check_gathered
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, value_of, why

from irprune.channels import analyse
from irprune.ops.reduce import ArgExtremum, ReduceSum, Reduction

KINDS = [*ReduceSum.ops, *Reduction.ops]


def _reduce(net: Net, kind: str, x: str, axes: list[int], **attributes: int) -> str:
    since = 13 if kind == "ReduceSum" else 18
    return net.axes_op(kind, x, axes, since, name="c", **attributes)


def test_a_sum_over_channels_contracts_them() -> None:
    net = Net()
    _reduce(net, "ReduceSum", net.image(3), [1])
    net.op("Relu", "c", name="y")
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2, 3], [0]]
    sites = [(s.node.op_type, s.axis) for s in analyse(model.ir.graph).contractions]
    assert sites == [("Conv", 1), ("ReduceSum", 1)]


@pytest.mark.parametrize("kind", Reduction.ops)
@pytest.mark.parametrize("axes", [[1], [-3], [2, 1], []])
def test_a_statistic_over_channels_keeps_them(kind: str, axes: list[int]) -> None:
    net = Net(13)
    if axes:
        _reduce(net, kind, net.image(3), axes)
    else:
        net.op(kind, net.image(3), name="c")
    net.op("Relu", "c", name="y")
    reason = f"takes part in the statistic {kind} at c.{kind} ({kind})"
    assert why(net.model(), "p.w", 0) == reason


@pytest.mark.parametrize("kind", ArgExtremum.ops)
def test_the_position_of_an_extreme_counts_every_position(kind: str) -> None:
    net = Net()
    x = net.image(3)
    net.op(kind, x, name="c", axis=-3, keepdims=0)
    net.op(kind, x, name="d", axis=2)
    net.op("Cast", "d", name="e", to=1)
    net.consume("e", 4, 1, 3)
    model = net.model("y", "c")
    assert why(model, "p.w", 0).startswith(f"is indexed by {kind}")
    net = Net()
    net.op("Cast", net.op(kind, net.image(3), name="d", axis=2), name="e", to=1)
    net.consume("e", 4, 1, 3)
    assert ties(net.model(), ("p.w", 0)) == [[1, 2, 3]]


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMean"])
def test_computed_axes_pin(kind: str) -> None:
    net = Net(18)
    net.op(kind, net.image(3), net.input(1, name="r", dtype=7), name="c", keepdims=1)
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("a shape is unknown")


def test_no_axes_means_all_or_none() -> None:
    net = Net(18)
    net.op("ReduceMean", net.image(3), name="c", noop_with_empty_axes=1)
    net.consume("c", 4, 1, 3)
    assert ties(net.model(), ("p.w", 0), ("c", 1)) == [[1, 2, 3]] * 2
    net = Net(13)
    net.op("ReduceSum", net.image(3), name="y", keepdims=0)
    assert ties(net.model(), ("p.w", 0)) == [[1, 2, 3]]


@pytest.mark.parametrize("kind", KINDS)
@given(
    axes=st.sampled_from([[2], [3, 2], [-1], [0], [-2, -1], [0, 2]]),
    keepdims=st.booleans(),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 11, 13, 18]),
    seed=seeds,
)
@settings(max_examples=10)
def test_random_reductions_of_other_axes_stay_exact(
    kind: str,
    axes: list[int],
    keepdims: bool,
    channels: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    net = Net(opset, seed)
    x = net.op("Softplus", net.image(channels, batch))
    _reduce(net, kind, x, axes, keepdims=int(keepdims))
    rank = 4 if keepdims else 4 - len(axes)
    axis = 1 if keepdims or 0 not in axes else 0
    net.consume("c", rank, axis, channels) if rank > 1 else net.linear("c", channels, 2, "y")
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


@given(
    axes=st.sampled_from([[1], [-3], [1, 2, 3], [3, 1], [0, 1]]),
    keepdims=st.booleans(),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 11, 13, 18]),
    seed=seeds,
)
def test_random_sums_over_channels_stay_exact(
    axes: list[int], keepdims: bool, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    _reduce(net, "ReduceSum", net.image(channels, batch), axes, keepdims=int(keepdims))
    net.op("Tanh", "c", name="y")
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


@pytest.mark.parametrize("kind", Reduction.ops)
@given(
    axes=st.sampled_from([[1], [-3], [1, 2, 3], [3, 1], [0, 1]]),
    keepdims=st.booleans(),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 11, 13, 18]),
    seed=seeds,
)
@settings(max_examples=10)
def test_random_statistics_over_channels_lose_some(
    kind: str,
    axes: list[int],
    keepdims: bool,
    channels: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    net = Net(opset, seed)
    x = net.op("Softplus", net.image(channels, batch))
    _reduce(net, kind, x, axes, keepdims=int(keepdims))
    net.op("Tanh", "c", name="y")
    trial = check_gathered(net.model(), seed, (kind,))
    assert all(ties(trial.model, ("p.w", 0), channels=trial.channels)[0])


@given(
    kind=st.sampled_from(["ReduceSum", "ReduceL2", "ReduceMax", "ReduceMean"]),
    axes=st.sampled_from([[3], [2], [1], [1, 3], [2, 3]]),
    keepdims=st.booleans(),
    heads=st.integers(2, 3),
    width=st.integers(2, 4),
    batch=batches,
    opset=st.sampled_from([9, 11, 18]),
    seed=seeds,
)
def test_random_statistics_within_heads_lose_different_channels(
    kind: str,
    axes: list[int],
    keepdims: bool,
    heads: int,
    width: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    """Unless they mix the heads, or the proof could not gather what each head keeps."""
    net = Net(opset, seed)
    size = heads * width
    x = net.op("Reshape", net.tokens(size, batch), net.ints(0, 0, heads, width), name="h")
    _reduce(net, kind, net.op("Softplus", x), axes, keepdims=int(keepdims))
    rank = 4 if keepdims else 4 - len(axes)
    net.op("Tanh", "c", name="t")
    if keepdims:
        merged = net.op("Reshape", net.op("Mul", "h", "t"), net.ints(0, 0, size))
        net.consume(merged, 3, 2, size, name="y")
    elif 3 in axes:
        net.op("Tanh", "t", name="y")
    else:
        net.consume("t", rank, rank - 1, width, name="y")
    trial = check_gathered(net.model(), seed, ("inexact",))
    classes = trial.channels.of(value_of(trial.model, "p.w"))[1]
    assert classes is not None and classes.all()
    shared = not keepdims and 3 not in axes  # the last weight is the same for all heads
    free = opset >= 11 and 2 not in axes and not shared
    assert len(set(classes.tolist())) == (size if free else width)

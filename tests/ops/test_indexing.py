"""GatherND and its kin: constant tuples renumber positions, indexed axes stay, others pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from strategies import Net, check_random_plan, seeds, ties, why

from irprune.walk import Heads


@given(
    depth=st.integers(1, 3),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    heads=st.sampled_from(["inner", "whole"]),
    seed=seeds,
)
def test_constant_tuples_stay_exact(
    depth: int, rows: int, columns: int, heads: Heads, seed: int
) -> None:
    """The channels stand on axis 0 and are arranged as a table."""
    net = Net(seed=seed)
    channels = rows * columns
    x = net.op("Transpose", net.tokens(channels), perm=[2, 0, 1])
    table = np.zeros((rows, columns, depth), np.int64)
    table[..., 0] = net.random.permutation(channels).reshape(rows, columns) - channels
    table[..., 2:] = net.random.integers(0, 3, size=(rows, columns, max(depth - 2, 0)))
    net.op("GatherND", x, net.constant(table), name="c")
    net.axes_op("ReduceSum", "c", [0, 1], since=13, name="y")
    trial = check_random_plan(net.model(), seed, heads)
    if channels > 1:
        assert any(ties(trial.model, ("p.w", 1), heads=heads)[0])


@given(width=st.integers(1, 5), batch=st.booleans(), computed=st.booleans(), seed=seeds)
def test_axes_after_the_tuple_stay_exact(
    width: int, batch: bool, computed: bool, seed: int
) -> None:
    net = Net(seed=seed)
    x = net.tokens(width, 2)
    places = net.random.integers(0, 2, size=(2, 4, 1 if batch else 2))
    where = net.constant(places)
    if computed:
        where = net.input(*places.shape, name="where", dtype=TensorProto.INT64)
    net.op("GatherND", x, where, name="c", batch_dims=int(batch))
    net.consume("c", 3, 2, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 1))[0])


def test_a_single_tuple_keeps_its_position_alone() -> None:
    net = Net()
    x = net.op("Transpose", net.tokens(3), perm=[2, 0, 1])
    net.op("GatherND", x, net.ints(1, 0), name="c")
    net.axes_op("ReduceSum", x, [0], since=13, name="y")
    model = net.model("c", "y")
    assert ties(model, ("p.w", 1)) == [[1, 0, 2]]
    for seed in range(4):
        check_random_plan(model, seed)


def test_computed_tuples_pin_what_they_index() -> None:
    net = Net()
    x = net.op("Transpose", net.tokens(3), perm=[2, 0, 1])
    net.op("GatherND", x, net.input(4, 1, name="i", dtype=TensorProto.INT64), name="y")
    assert why(net.model(), "p.w", 1).startswith("is indexed at computed positions")


@pytest.mark.parametrize("computed", [False, True])
@given(width=st.integers(1, 5), seed=seeds)
def test_elements_stay_exact(computed: bool, width: int, seed: int) -> None:
    """Gathered from and scattered to along the tokens; the channels pass."""
    net = Net(seed=seed)
    x = net.tokens(width, 2)
    places = np.stack([net.random.permutation(3)[:2] for _ in range(2 * width)], -1)
    where = net.constant(places.reshape(2, 2, width).swapaxes(0, 1).copy(), "where")
    if computed:
        ones = net.op("Mul", x, net.constant(np.float32(0)))
        first = net.op("Slice", ones, net.ints(0), net.ints(2), net.ints(1))
        where = net.op("Cast", net.op("Add", first, net.weight(2, 1, low=0)), to=7)
    picked = net.op("GatherElements", x, where, name="picked", axis=1)
    net.op("ScatterElements", x, where, net.op("Tanh", picked), name="c", axis=-2)
    net.consume("c", 3, 2, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 1), ("picked", 2))[0])


def test_elements_in_part_pin() -> None:
    net = Net()
    net.op("GatherElements", net.tokens(4), net.constant(np.zeros((1, 2, 3), np.int64)), axis=1)
    net.op("ReduceSum", "gatherelements2", net.ints(2), name="y")
    assert why(net.model(), "p.w", 1).startswith("is indexed in part")
    net = Net()
    net.op("GatherElements", net.tokens(4), net.constant(np.zeros((1, 3, 4), np.int64)), axis=2)
    net.op("ReduceSum", "gatherelements2", net.ints(2), name="y")
    assert why(net.model(), "p.w", 1).startswith("is indexed at computed positions")


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    depth=st.integers(1, 2),
    heads=st.sampled_from(["inner", "whole"]),
    seed=seeds,
)
def test_constant_places_that_are_written_stay_exact(
    rows: int, columns: int, depth: int, heads: Heads, seed: int
) -> None:
    """A part of the channels on axis 0 is overwritten by a table of others."""
    net = Net(seed=seed)
    channels = rows * columns + 2
    x = net.op("Transpose", net.tokens(channels), perm=[2, 0, 1])
    places = net.random.permutation(channels)[: rows * columns].reshape(rows, columns, 1)
    tuples = np.concatenate([places, np.zeros((rows, columns, depth - 1), np.int64)], -1)
    y = net.tokens(rows * columns, name="u")
    updates = net.op("Reshape", net.op("Transpose", y, perm=[2, 0, 1]), net.ints(rows, -1, 1, 3))
    updates = net.op("Squeeze", updates, net.ints(2)) if depth == 2 else updates
    net.op("ScatterND", x, net.constant(tuples), updates, name="c")
    net.consume(net.op("Transpose", "c", perm=[1, 2, 0]), 3, 2, channels)
    trial = check_random_plan(net.model(), seed, heads)
    written, other = ties(trial.model, ("p.w", 1), ("u.w", 1), heads=heads)
    assert sum(map(bool, written)) >= (channels if rows * columns > 1 else 2)
    if rows * columns > 1:
        assert other == [written[k] for k in places.ravel()]


@given(width=st.integers(1, 5), seed=seeds)
def test_writing_nothing_stays_exact(width: int, seed: int) -> None:
    """What a mask of windows that are not shifted writes: an empty slice."""
    net = Net(seed=seed)
    nowhere = net.constant(np.zeros((0, 5, 2), np.int64))
    updates = net.constant(np.zeros((0, 5, width), np.float32))
    net.op("ScatterND", net.tokens(width, 2), nowhere, updates, name="c")
    net.consume("c", 3, 2, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 1))[0])


@pytest.mark.parametrize("computed", [False, True])
@given(width=st.integers(1, 5), seed=seeds)
def test_written_slices_stay_exact(computed: bool, width: int, seed: int) -> None:
    net = Net(seed=seed)
    x = net.tokens(width, 2)
    updates = net.linear(net.input(4, 2, name="u.x"), 2, width, "u")
    tuples = np.array([[0, 1], [1, 2], [0, 0], [1, 0]])
    where = net.constant(tuples)
    if computed:
        offset = net.input(4, 2, name="offset", dtype=TensorProto.INT64)
        where = net.op("Mul", where, net.op("Sub", offset, offset))
        where = net.op("Add", where, net.constant(tuples))
    net.op("ScatterND", x, where, updates, name="c")
    net.consume("c", 3, 2, width)
    trial = check_random_plan(net.model(), seed)
    rows = ties(trial.model, ("p.w", 1), ("u.w", 1))
    assert all(rows[0])
    assert rows[0] == rows[1]
    assert not any(ties(trial.model, ("c", 1))[0])

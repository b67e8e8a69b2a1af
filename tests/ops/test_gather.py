"""Gather: constant indices renumber positions, computed ones keep the axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.queries import constant_of
from irprune.walk import Heads


def test_constant_indices_select_labels() -> None:
    net = Net()
    net.op("Gather", net.image(4), net.ints(2, 0, -1, 2), name="c", axis=1)
    net.consume("c", 4, 1, 4)
    assert ties(net.model(), ("p.w", 0), ("c", 1)) == [[1, 2, 3, 4], [3, 1, 4, 3]]


def test_a_scalar_index_keeps_its_position_alone() -> None:
    net = Net()
    x = net.image(3)
    net.op("Gather", x, net.constant(np.int64(-2)), name="c", axis=1)
    net.consume(x, 4, 1, 3)
    model = net.model("y", "c")
    assert ties(model, ("p.w", 0)) == [[1, 0, 2]]


def test_a_table_of_indices_ties_its_columns() -> None:
    net = Net()
    table = net.constant(np.array([[0, 1, 2], [3, 4, 5]]))
    net.op("Gather", net.image(6), table, name="c", axis=1)
    net.consume("c", 5, 2, 3)
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 2)) == [[1, 2, 3, 1, 2, 3], [1, 2, 3]]
    assert ties(model, ("c", 1)) == [[0, 0]]


def test_heads_says_which_index_axis_carries_channels() -> None:
    net = Net()
    table = net.constant(np.array([[0, 1, 2], [3, 4, 5]]))
    net.op("Gather", net.image(6), table, name="c", axis=1)
    net.axes_op("ReduceSum", "c", [1, 2], since=13, name="y")
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 2)) == [[1, 2, 3, 1, 2, 3], [1, 2, 3]]
    whole = ties(model, ("p.w", 0), ("c", 1), heads="whole")
    assert whole == [[1, 1, 1, 2, 2, 2], [1, 2]]


def test_computed_indices_keep_the_axis_and_free_the_columns() -> None:
    net = Net()
    table = net.weight(5, 4, name="table")
    net.op("Gather", table, net.input("N", 3, name="x", dtype=TensorProto.INT64), name="c")
    net.consume("c", 3, 2, 4)
    model = net.model()
    assert why(model, "table", 0).startswith("is gathered at computed positions")
    assert ties(model, ("table", 1), ("c", 2)) == [[1, 2, 3, 4]] * 2


def test_columns_of_a_looked_up_table_are_created_there() -> None:
    net = Net()
    table, words = net.weight(5, 4, name="table"), net.input("N", 3, name="x", dtype=7)
    net.consume(net.op("Gather", table, words), 3, 2, 4)
    net.op("Gather", net.weight(5, 4), words, name="z", axis=1)
    net.op("Gather", net.weight(5, 4), net.ints(1, 2), name="constant")
    (group,) = coupled_groups(analyse(net.model("y").ir.graph))
    assert [(site.node.name, site.axis) for site in group.producers] == [("gather1.Gather", 1)]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@given(
    indices=st.lists(st.integers(-5, 4), min_size=1, max_size=8),
    batch=batches,
    opset=st.sampled_from([8, 11, 13]),
    seed=seeds,
)
def test_random_constant_gathers_stay_exact(
    dtype: type[np.integer], indices: list[int], batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    x = net.image(5, batch)
    net.op("Gather", x, net.constant(np.array(indices, dtype), "i"), name="c", axis=1)
    net.consume("c", 4, 1, len(indices))
    net.consume(x, 4, 1, 5, name="z")
    trial = check_random_plan(net.model("y", "z"), seed)
    if len(indices) > 1:
        assert all(ties(trial.model, ("p.w", 0))[0])
    node = next(n for n in trial.small.ir.graph if n.op_type == "Gather")
    kept = constant_of(node.inputs[1])
    assert kept is not None
    assert kept.dtype == dtype


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 4),
    heads=st.sampled_from(["inner", "whole"]),
    axis=st.sampled_from([2, -1]),
    batch=batches,
    seed=seeds,
)
def test_random_index_tables_stay_exact(
    rows: int, columns: int, heads: Heads, axis: int, batch: Dim, seed: int
) -> None:
    """A permutation of the channels arranged as a table, as window partitions export."""
    net = Net(seed=seed)
    order = net.random.permutation(rows * columns).reshape(rows, columns)
    x = net.tokens(rows * columns, batch)
    net.op("Gather", x, net.constant(order), name="c", axis=axis)
    net.axes_op("ReduceSum", "c", [2, 3], since=13, name="y")
    trial = check_random_plan(net.model(), seed, heads)
    if rows * columns > 1:
        assert all(ties(trial.model, ("p.w", 1), heads=heads)[0])


@given(width=st.integers(1, 6), length=st.sampled_from([3, "T"]), batch=batches, seed=seeds)
def test_embeddings_stay_exact(width: int, length: Dim, batch: Dim, seed: int) -> None:
    net = Net(seed=seed)
    tokens = net.input(batch, length, name="x", dtype=TensorProto.INT64)
    words = net.op("Gather", net.weight(7, width, name="table"), tokens)
    places = net.weight(3, width, name="places")
    net.op("Add", words, places, name="c")
    net.consume("c", 3, 2, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("table", 1))[0])

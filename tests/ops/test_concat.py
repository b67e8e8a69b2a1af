"""Concat: channels side by side, or the same channels further along another axis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why


def test_channels_stand_side_by_side() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    a, b = net.conv(x, 2, 2, name="a"), net.conv(x, 2, 3, name="b")
    net.op("Concat", a, b, a, name="c", axis=1)
    net.consume("c", 4, 1, 7)
    rows = ties(net.model(), ("a.w", 0), ("b.w", 0), ("c", 1), ("y.w", 1))
    assert rows == [[1, 2], [3, 4, 5], [1, 2, 3, 4, 5, 1, 2], [1, 2, 3, 4, 5, 1, 2]]


def test_along_another_axis_the_channels_are_tied() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    a, b = net.conv(x, 2, 3, name="a"), net.conv(x, 2, 3, name="b")
    net.op("Concat", a, b, name="c", axis=-1)
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert ties(model, ("a.w", 0), ("b.w", 0), ("c", 1)) == [[1, 2, 3]] * 3
    assert ties(model, ("c", 3)) == [[0] * 8]


def test_graph_input_channels_stay_beside_free_ones() -> None:
    net = Net()
    x = net.input(1, 2, 4, 4)
    net.op("Concat", x, net.conv(x, 2, 3, name="a"), name="c", axis=1)
    net.consume("c", 4, 1, 5)
    assert ties(net.model(), ("c", 1)) == [[0, 0, 1, 2, 3]]


def test_a_dynamic_part_pins_the_others() -> None:
    net = Net()
    x = net.op("MatMul", net.weight(3, 4, name="a"), net.input(1, 4, 2), name="l")
    net.op("Concat", x, net.input(1, "T", 2, name="z"), name="c", axis=1)
    net.linear("c", 2, 2, name="y")
    assert why(net.model(), "a", 0).startswith("is concatenated with a dynamic axis")


@given(
    parts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    again=st.booleans(),
    constant=st.integers(0, 2),
    batch=batches,
    opset=st.sampled_from([8, 11, 13]),
    seed=seeds,
)
def test_random_channel_concats_stay_exact(
    parts: list[int], again: bool, constant: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    x = net.input(batch, 2, 4, 4)
    values = [net.conv(x, 2, width, name=f"p{k}") for k, width in enumerate(parts)]
    if again:
        values.append(values[0])
        parts = [*parts, parts[0]]
    if constant and batch != "N":
        values.append(net.weight(int(batch), constant, 4, 4, name="k"))
        parts = [*parts, constant]
    net.op("Concat", *values, name="c", axis=1)
    net.consume(net.op("Relu", "c"), 4, 1, sum(parts))
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("c", 1))[0])


@given(
    axis=st.sampled_from([0, 2, 3, -1]),
    batch=st.integers(1, 2),
    width=st.integers(1, 5),
    seed=seeds,
)
def test_random_spatial_concats_stay_exact(axis: int, batch: int, width: int, seed: int) -> None:
    net = Net(seed=seed)
    x = net.input(batch, 2, 4, 4)
    net.op("Concat", *(net.conv(x, 2, width, name=n) for n in "ade"), name="c", axis=axis)
    net.consume("c", 4, 1, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("a.w", 0))[0])

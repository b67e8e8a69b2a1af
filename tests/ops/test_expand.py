"""Expand and Tile: positions that are copies of others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why


def test_expand_frees_the_copies_and_keeps_the_original() -> None:
    net = Net()
    image = net.input(2, 2, 4, 4)
    one = net.conv(image, 2, 1, name="one")
    net.op("Expand", one, net.ints(2, 3, 1, 1), name="e")
    net.op("Mul", net.conv(image, 2, 3, name="p"), "e", name="c")
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert why(model, "one.w", 0).startswith("is broadcast along a longer axis at e.Expand")
    assert ties(model, ("e", 1), ("p.w", 0)) == [[1, 2, 3]] * 2


def test_tile_repeats_the_labels() -> None:
    net = Net(13)
    net.op("Tile", net.image(3), net.ints(1, 2, 1, 1), name="c")
    net.consume("c", 4, 1, 6)
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2, 3], [1, 2, 3, 1, 2, 3]]


def test_tile_by_computed_repeats_pins() -> None:
    net = Net(13)
    net.op("Tile", net.image(3), net.input(4, name="r", dtype=7), name="c")
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("is repeated as often as is computed at run time")


@given(
    shape=st.sampled_from(
        [(1, 1, 1), (1, 1, 1, 1), (2, 1, 1, 1, 1), ("C", 1, 1), (1, "C", 1, 1), (1, 1, 5, 4), (1,)]
    ),
    channels=st.integers(1, 6),
    single=st.booleans(),
    batch=st.integers(1, 2),
    opset=st.sampled_from([8, 13]),
    seed=seeds,
)
def test_random_expands_stay_exact(
    shape: tuple[int | str, ...], channels: int, single: bool, batch: int, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    image = net.input(batch, 2, 1, 4)
    x = net.conv(image, 2, 1 if single else channels, name="p")
    net.op("Expand", x, net.ints(*(channels if d == "C" else int(d) for d in shape)), name="e")
    y = net.op("Mul", net.conv(image, 2, channels, name="q"), "e", name="c")
    rank = max(len(shape), 4)
    net.consume(y, rank, rank - 3, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("q.w", 0))[0])


@given(channels=st.integers(1, 6), batch=batches, seed=seeds)
def test_expands_to_computed_shapes_stay_exact(channels: int, batch: Dim, seed: int) -> None:
    """The class token pattern: the batch length is read at run time, the rest is constant."""
    net = Net(seed=seed)
    x = net.tokens(channels, batch)
    length = net.op("Gather", net.op("Shape", x), net.ints(0), axis=0)
    shape = net.op("Concat", length, net.ints(1, channels), axis=0)
    token = net.op("Expand", net.weight(1, 1, channels, name="token"), shape, name="e")
    net.op("Concat", token, x, name="c", axis=1)
    net.consume("c", 3, 2, channels)
    trial = check_random_plan(net.model(), seed)
    if channels > 1:
        free = list(range(1, channels + 1))
        assert ties(trial.model, ("p.w", 1), ("token", 2), ("e", 2)) == [free] * 3


@given(
    repeats=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    channels=st.integers(1, 5),
    batch=batches,
    opset=st.sampled_from([8, 13]),
    seed=seeds,
)
def test_random_tiles_stay_exact(
    repeats: list[int], channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    x = net.image(channels, batch, (2, 2))
    net.op("Tile", x, net.ints(*repeats), name="c")
    net.consume("c", 4, 1, channels * repeats[1])
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])

"""Transpose, DepthToSpace and SpaceToDepth: axes in another order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

from irprune.walk import Heads

both_heads = st.sampled_from(["inner", "whole"])


def test_labels_follow_their_axis() -> None:
    net = Net()
    net.op("Transpose", net.image(3, "N"), name="c", perm=[0, 2, 3, 1])
    net.linear("c", 3, 2, "y")
    assert ties(net.model(), ("p.w", 0), ("c", 3), ("y.w", 0)) == [[1, 2, 3]] * 3


def test_without_a_permutation_the_axes_are_reversed() -> None:
    net = Net()
    net.op("Transpose", net.tokens(3, 2), name="c")
    net.linear(net.op("Transpose", "c"), 3, 2, "y")
    assert ties(net.model(), ("p.w", 1), ("c", 0)) == [[1, 2, 3]] * 2


@pytest.mark.parametrize("heads", ["inner", "whole"])
@pytest.mark.parametrize(
    ("mode", "classes"), [("DCR", [1, 2, 1, 2, 1, 2, 1, 2]), ("CRD", [1, 1, 1, 1, 2, 2, 2, 2])]
)
def test_depth_to_space_ties_the_pixels_of_a_block(
    mode: str, classes: list[int], heads: Heads
) -> None:
    net = Net()
    net.op("DepthToSpace", net.image(8, "N"), name="c", blocksize=2, mode=mode)
    net.consume("c", 4, 1, 2)
    assert ties(net.model(), ("p.w", 0), ("c", 1), heads=heads) == [classes, [1, 2]]


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_the_block_of_depth_to_space_never_shrinks(mode: str) -> None:
    """Summing rows away leaves them unpinned, but the block size is one number."""
    net = Net()
    net.op("DepthToSpace", net.image(8), name="c", blocksize=2, mode=mode)
    net.axes_op("ReduceSum", "c", [1, 2, 3], since=13, name="y")
    model = net.model()
    assert ties(model, ("c", 1), ("c", 2), ("c", 3)) == [[1, 2], [0] * 8, [0] * 8]
    for seed in range(4):
        check_random_plan(model, seed)


def test_space_to_depth_repeats_the_channels() -> None:
    net = Net()
    net.op("SpaceToDepth", net.image(2, "N"), name="c", blocksize=2)
    net.consume("c", 4, 1, 8)
    assert ties(net.model(), ("p.w", 0), ("c", 1)) == [[1, 2], [1, 2] * 4]


def test_space_to_depth_keeps_its_blocks() -> None:
    net = Net()
    x = net.op("MatMul", net.weight(4, 4, name="m"), net.image(2), name="r")
    net.op("SpaceToDepth", x, name="c", blocksize=2)
    net.axes_op("ReduceSum", "c", [1, 2, 3], since=13, name="y")
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2], [1, 2] * 4]
    assert ties(model, ("m", 0), ("c", 2)) == [[1, 1, 2, 2], [1, 2]]
    for seed in range(4):
        check_random_plan(model, seed)


def test_a_dynamic_channel_axis_pins() -> None:
    net = Net()
    net.op("DepthToSpace", net.input(1, "C", 2, 2), name="d", blocksize=2)
    net.op("Mul", "d", net.weight(3, 1, 1, name="m"), name="c")
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "m", 0).startswith("meets a dynamic axis")


@given(order=st.permutations([1, 2, 3]), channels=st.integers(1, 6), batch=batches, seed=seeds)
def test_random_transposes_stay_exact(
    order: list[int], channels: int, batch: Dim, seed: int
) -> None:
    net = Net(seed=seed)
    x = net.op("MatMul", net.image(channels, batch), net.weight(4, 3, name="m"))
    net.op("Transpose", x, name="c", perm=[0, *order])
    net.axes_op("ReduceSum", net.op("Sigmoid", "c"), [1, 2, 3], since=13, name="y")
    trial = check_random_plan(net.model(), seed)
    rows = ties(trial.model, ("p.w", 0), ("m", 1))
    assert all(map(all, rows))


@given(
    mode=st.sampled_from(["DCR", "CRD"]),
    depth=st.integers(1, 4),
    block=st.integers(1, 3),
    size=st.sampled_from([(2, 3), ("H", "W"), (1, 1)]),
    batch=batches,
    heads=both_heads,
    opset=st.sampled_from([11, 13]),
    seed=seeds,
)
def test_random_depth_to_space_stays_exact(
    mode: str,
    depth: int,
    block: int,
    size: tuple[Dim, Dim],
    batch: Dim,
    heads: Heads,
    opset: int,
    seed: int,
) -> None:
    net = Net(opset, seed)
    x = net.image(depth * block**2, batch, size)
    net.op("DepthToSpace", x, name="c", blocksize=block, mode=mode)
    net.consume("c", 4, 1, depth)
    trial = check_random_plan(net.model(), seed, heads)
    assert depth == 1 or all(ties(trial.model, ("p.w", 0), heads=heads)[0])


@given(
    channels=st.integers(1, 4),
    block=st.integers(1, 3),
    rows=st.integers(1, 2),
    free_rows=st.booleans(),
    batch=batches,
    heads=both_heads,
    opset=st.sampled_from([8, 13]),
    seed=seeds,
)
def test_random_space_to_depth_stays_exact(
    channels: int,
    block: int,
    rows: int,
    free_rows: bool,
    batch: Dim,
    heads: Heads,
    opset: int,
    seed: int,
) -> None:
    net = Net(opset, seed)
    x = net.image(channels, batch, (rows * block, block))
    if free_rows:
        x = net.op("MatMul", net.weight(rows * block, rows * block, name="m"), x)
    net.op("SpaceToDepth", x, name="c", blocksize=block)
    net.axes_op("ReduceSum", net.op("Sigmoid", "c"), [1, 2, 3], since=13, name="y")
    trial = check_random_plan(net.model(), seed, heads)
    if not free_rows:
        assert channels == 1 or all(ties(trial.model, ("p.w", 0), heads=heads)[0])

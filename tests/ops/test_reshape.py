"""Reshape, Flatten, Squeeze and Unsqueeze: index maps, factorised into axes."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, value_of, why

from irprune.ops.reshape import segments
from irprune.queries import constant_of
from irprune.walk import Heads

both_heads = st.sampled_from(["inner", "whole"])


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((2, 3), (2, 3), [((0, 1), (0, 1)), ((1, 2), (1, 2))]),
        (("N", 6), ("N", 2, 3), [((0, 1), (0, 1)), ((1, 2), (1, 3))]),
        ((4, 3, 2), (2, 2, 6), [((0, 1), (0, 2)), ((1, 3), (2, 3))]),
        ((1, 3, 1), (3,), [((0, 2), (0, 1)), ((2, 3), (1, 1))]),
        (("N", 3, "T"), ("T", 3, "N"), [((0, 3), (0, 3))]),
        (("N", 4, "T"), (None, 2, 2, "T"), [((0, 1), (0, 1)), ((1, 2), (1, 3)), ((2, 3), (3, 4))]),
        ((None, 4, 3), (None, 2, 2, 3), [((0, 1), (0, 1)), ((1, 2), (1, 3)), ((2, 3), (3, 4))]),
        ((6, 4), (4, 6), [((0, 2), (0, 2))]),
    ],
)
def test_segments(
    source: tuple[Dim | None, ...],
    target: tuple[Dim | None, ...],
    expected: list[tuple[tuple[int, int], tuple[int, int]]],
) -> None:
    found = [((a.start, a.stop), (b.start, b.stop)) for a, b in segments(source, target)]
    assert found == expected


@given(parts=st.lists(st.integers(1, 4), max_size=6), data=st.data())
def test_segments_cover_both_shapes_with_equal_products(
    parts: list[int], data: st.DataObject
) -> None:
    def grouped() -> list[int]:
        cuts = sorted(data.draw(st.sets(st.integers(1, max(len(parts), 1)))))
        bounds = [0, *(c for c in cuts if c < len(parts)), len(parts)]
        return [prod(parts[a:b]) for a, b in pairwise(bounds)]

    source, target = grouped(), grouped()
    found = segments(source, target)
    assert [k for a, _ in found for k in a] == list(range(len(source)))
    assert [k for _, b in found for k in b] == list(range(len(target)))
    for inner, outer in found:
        assert prod(source[k] for k in inner) == prod(target[k] for k in outer)


# What is free


def test_a_merge_with_positions_repeats_the_labels() -> None:
    net = Net()
    x = net.image(3, "N", (2, 2))
    net.op("Flatten", x, name="c")
    net.linear("c", 12, 2, "y")
    rows = ties(net.model(), ("p.w", 0), ("c", 1), ("y.w", 0))
    assert rows == [[1, 2, 3], [1] * 4 + [2] * 4 + [3] * 4, [1] * 4 + [2] * 4 + [3] * 4]


def test_channels_that_stand_last_in_a_merge_repeat_as_a_whole() -> None:
    """Permute, then flatten."""
    net = Net()
    x = net.op("Transpose", net.image(3, "N", (2, 2)), perm=[0, 2, 3, 1])
    net.linear(net.op("Reshape", x, net.ints(0, -1)), 12, 2, "y")
    assert ties(net.model(), ("p.w", 0), ("y.w", 0)) == [[1, 2, 3], [1, 2, 3] * 4]


def _split(net: Net) -> None:
    net.op("Reshape", net.tokens(6), net.ints(1, 3, 2, 3), name="c")
    net.axes_op("ReduceSum", "c", [2, 3], since=13, name="y")


@pytest.mark.parametrize(
    ("heads", "classes"), [("inner", [1, 2, 3, 1, 2, 3]), ("whole", [1, 1, 1, 2, 2, 2])]
)
def test_a_split_ties_across_rows_or_columns(heads: Heads, classes: list[int]) -> None:
    net = Net()
    _split(net)
    axis = 3 if heads == "inner" else 2
    rows = ties(net.model(), ("p.w", 1), ("c", axis), ("c", 5 - axis), heads=heads)
    assert rows == [classes, sorted(set(classes)), [0] * (5 - len(set(classes)))]


def test_a_split_falls_back_on_the_axis_that_survives() -> None:
    net = Net()
    net.op("Reshape", net.tokens(6), net.ints(1, 3, 2, 3), name="c")
    net.consume("c", 4, 2, 2)
    model = net.model()
    for heads in ("inner", "whole"):
        rows = ties(model, ("p.w", 1), ("c", 2), ("c", 3), heads=heads)
        assert rows == [[1, 1, 1, 2, 2, 2], [1, 2], [0, 0, 0]]


def test_a_merge_of_two_free_axes_follows_the_longest() -> None:
    net = Net()
    x = net.op("MatMul", net.weight(3, 2, name="a"), net.input("N", 2, 2), name="l")
    net.op("Reshape", net.linear(x, 2, 4, name="b"), net.ints(-1, 12), name="c")
    net.linear("c", 12, 2, "y")
    model = net.model()
    assert ties(model, ("b.w", 1), ("y.w", 0)) == [[1, 2, 3, 4], [1, 2, 3, 4] * 3]
    reason = "merges with another axis that carries the channels at c.Reshape (Reshape)"
    assert why(model, "a", 0) == reason


def test_a_merge_of_split_axes_follows_one_that_survives() -> None:
    """The longest part at the merge is the one that the split before it gave up."""
    net = Net()
    x = net.op("MatMul", net.weight(6, 2, name="a"), net.input(1, 2, 2), name="l")
    net.op("Reshape", net.linear(x, 2, 4, name="b"), net.ints(1, 3, 2, 2, 2), name="c")
    net.op("Reshape", net.op("Tanh", "c"), net.ints(1, 24), name="d")
    net.linear("d", 24, 2, "y")
    rows = ties(net.model(), ("a", 0), ("c", 2), ("b.w", 1))
    assert rows == [[1, 2] * 3, [1, 2], [0] * 4]


def _shuffle(net: Net, x: str, groups: int, width: int, batch: int) -> str:
    x = net.op("Reshape", x, net.ints(batch, groups, width, 2, 2))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", x, net.ints(batch, -1, 2, 2), name="c")


def test_a_channel_shuffle_ties_the_same_index_of_every_group() -> None:
    net = Net()
    _shuffle(net, net.image(6, 1, (2, 2)), 2, 3, 1)
    net.consume("c", 4, 1, 6)
    rows = ties(net.model(), ("p.w", 0), ("y.w", 1))
    assert rows == [[1, 2, 3, 1, 2, 3], [1, 1, 2, 2, 3, 3]]


def test_unknown_dimensions_beside_a_squeeze_stay_apart() -> None:
    """The channels stand between two dimensions without names; the axes tell which is which."""
    net = Net()
    x = net.op("Transpose", net.tokens(4, "N", "T"), perm=[0, 2, 1], name="t")
    u = net.op("Unsqueeze", x, net.ints(3, 1), name="u")
    net.op("Squeeze", u, net.ints(-2), name="c")
    net.op("ReduceMax", "c", axes=[0, 1, 3], keepdims=0, name="m")
    net.linear("m", 4, 2, "y")
    model = net.model()
    for value in (value_of(model, "t"), value_of(model, "u"), value_of(model, "c")):
        value.shape = ir.Shape([d if isinstance(d, int) else None for d in value.shape.dims])
    assert ties(model, ("p.w", 1), ("u", 2), ("c", 2)) == [[1, 2, 3, 4]] * 3


def test_an_axis_of_one_position_that_vanishes_in_a_merge_stays() -> None:
    net = Net()
    net.op("Reshape", net.image(1, 1, (2, 2)), net.ints(1, 4), name="c")
    net.linear("c", 4, 2, "y")
    assert why(net.model(), "p.w", 0).startswith("is an axis of one position")


def test_a_reshape_with_a_dynamic_axis_pins_what_it_mixes() -> None:
    net = Net()
    net.op("Reshape", net.tokens(4, 1, "T"), net.ints(1, 2, -1), name="c")
    net.op("ReduceMax", "c", axes=[2], name="y")
    assert why(net.model(), "p.w", 1).startswith("is reshaped together with a dynamic axis")
    net = Net()
    x = net.op("Transpose", net.tokens(4, 1, "T"), perm=[0, 2, 1])
    net.linear(net.op("Reshape", x, net.ints(1, -1, 2), name="c"), 2, 2, "y")
    assert why(net.model(), "p.w", 1).startswith("is reshaped together with a dynamic axis")


@pytest.mark.parametrize("heads", ["inner", "whole"])
def test_the_last_axes_pass_beside_a_dynamic_one(heads: Heads) -> None:
    """(batch, heads * width) to (batch * heads, width) and back: the width is followed."""
    net = Net()
    net.op("Reshape", net.tokens(6, "N"), net.ints(3, -1, 2), name="c")
    net.op("Reshape", net.op("Tanh", "c"), net.ints(-1, 3, 6), name="d")
    net.linear("d", 6, 2, "y")
    rows = ties(net.model(), ("p.w", 1), ("c", 2), ("d", 2), heads=heads)
    assert rows == [[1, 2, 1, 2, 1, 2], [1, 2], [1, 2, 1, 2, 1, 2]]


@given(
    rows=st.integers(1, 3),
    width=st.integers(1, 4),
    again=st.integers(1, 3),
    heads=both_heads,
    seed=seeds,
)
def test_axes_beside_a_dynamic_one_stay_exact(
    rows: int, width: int, again: int, heads: Heads, seed: int
) -> None:
    net = Net(seed=seed)
    x = net.tokens(rows * width, "N", again)
    net.op("Reshape", x, net.ints(-1, width), name="c")
    net.op("Reshape", net.op("Tanh", "c"), net.ints(-1, again * rows, width), name="d")
    net.op("Reshape", net.op("Tanh", "d"), net.ints(-1, again, rows * width), name="e")
    net.consume("e", 3, 2, rows * width)
    trial = check_random_plan(net.model(), seed, heads)
    if width > 1:
        assert all(ties(trial.model, ("p.w", 1), ("c", 1), ("e", 2), heads=heads)[0])


def test_what_does_not_divide_is_mixed_with_the_dynamic_axis() -> None:
    net = Net()
    net.op("Reshape", net.tokens(4, 1, "T"), net.ints(1, -1, 3), name="c")
    net.linear("c", 3, 2, "y")
    assert why(net.model(), "p.w", 1).startswith("is reshaped together with a dynamic axis")


def test_the_last_axis_is_followed_past_a_dynamic_one() -> None:
    """Heads beside the batch, as a transformer encoder has them, and back."""
    net = Net()
    net.op("Reshape", net.tokens(6, "T", "N"), net.ints(0, -1, 3), name="c")
    net.op("Reshape", "c", net.ints(0, -1, 2, 6), name="d")
    net.linear("d", 6, 2, "y")
    sites = ("p.w", 1), ("c", 2), ("d", 3)
    assert ties(net.model(), *sites) == [[1, 2, 3] * 2, [1, 2, 3], [1, 2, 3] * 2]
    assert ties(net.model(), ("d", 2)) == [[0, 0]]


# Random plans


@st.composite
def factors(draw: st.DrawFn, number: int) -> list[int]:
    """A few whole numbers with a given product."""
    parts = []
    while number > 1 and len(parts) < 3:
        part = draw(st.sampled_from([d for d in range(1, number + 1) if number % d == 0]))
        parts.append(part)
        number //= part
    return [*parts, number]


@given(
    before=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    after=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    dynamic=st.integers(0, 1),
    heads=both_heads,
    seed=seeds,
)
def test_random_reshapes_beside_a_dynamic_axis_stay_exact(
    before: list[int], after: list[int], dynamic: int, heads: Heads, seed: int
) -> None:
    """What follows the dynamic axis is cut in other ways; a fixed leading axis fills up."""
    net = Net(seed=seed)
    total, wanted = prod(before), prod(after)
    x = net.tokens(total, "N", wanted)
    parts = net.op("Reshape", x, net.ints(-1, *before), name="b")
    moved = net.op("Reshape", parts, net.ints(*[1] * dynamic, -1, *after), name="c")
    net.consume(moved, 1 + dynamic + len(after), -1, after[-1])
    trial = check_random_plan(net.model(), seed, heads)
    if not dynamic and before == after and max(before) > 1:
        assert any(map(any, ties(trial.model, ("p.w", 1), heads=heads)))


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    batch=batches,
    form=st.sampled_from(["explicit", "guess", "copy"]),
    heads=both_heads,
    data=st.data(),
    opset=st.sampled_from([8, 13, 14, 22]),
    seed=seeds,
)
def test_random_reshapes_stay_exact(
    rows: int,
    columns: int,
    batch: Dim,
    form: str,
    heads: Heads,
    data: st.DataObject,
    opset: int,
    seed: int,
) -> None:
    """Two free axes are merged, split and merged again in every way."""
    target = data.draw(factors(rows * columns))
    net = Net(opset, seed)
    x = net.op("MatMul", net.weight(rows, 2, name="a"), net.input(batch, 2, 2), name="l")
    shape: list[int] = [0 if batch == "N" else int(batch), *target]
    if form == "guess":
        shape[data.draw(st.integers(1, len(target)))] = -1
    if form == "copy":
        before = [1, rows, columns]
        shape = [0 if k < 3 and n == before[k] and k else n for k, n in enumerate(shape)]
    net.op("Reshape", net.linear(x, 2, columns, name="b"), net.ints(*shape), name="c")
    middle = net.op("Tanh", "c")
    again = data.draw(factors(rows * columns))
    net.op("Reshape", middle, net.ints(0, *again), name="d")
    axes = list(range(1, len(again) + 1))
    net.axes_op("ReduceSum", net.op("Sigmoid", "d"), axes, since=13, name="y")
    trial = check_random_plan(net.model(), seed, heads)
    if rows * columns > 1:
        assert any(ties(trial.model, ("a", 0), heads=heads)[0]) or any(
            ties(trial.model, ("b.w", 1), heads=heads)[0]
        )


@given(
    groups=st.integers(1, 3),
    width=st.integers(1, 4),
    grouped=st.booleans(),
    batch=st.integers(1, 2),
    heads=both_heads,
    seed=seeds,
)
def test_random_channel_shuffles_stay_exact(
    groups: int, width: int, grouped: bool, batch: int, heads: Heads, seed: int
) -> None:
    net = Net(seed=seed)
    channels = groups * width
    x = net.image(channels, batch, (2, 2))
    _shuffle(net, x, groups, width, batch)
    net.conv("c", channels, channels, 1, 1, name="g", group=groups if grouped else 1)
    net.consume("g", 4, 1, channels)
    trial = check_random_plan(net.model(), seed, heads)
    if channels > 1:
        assert any(ties(trial.model, ("p.w", 0), heads=heads)[0])


@given(
    axis=st.integers(-3, 4),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([11, 13]),
    seed=seeds,
)
def test_random_flattens_stay_exact(
    axis: int, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    net.op("Flatten", net.image(channels, batch, (2, 2)), name="c", axis=axis)
    net.axes_op("ReduceSum", "c", [1], since=13, name="y")
    check_random_plan(net.model(), seed)


@given(
    where=st.sampled_from([[0], [1], [2], [3], [-1], [0, 2], [1, -1]]),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 11, 13, 21]),
    seed=seeds,
)
def test_random_unsqueezes_and_squeezes_stay_exact(
    where: list[int], channels: int, batch: Dim, opset: int, seed: int
) -> None:
    where = [axis % (3 + len(where)) for axis in where] if opset < 11 else where
    net = Net(opset, seed)
    x = net.tokens(channels, batch)
    net.axes_op("Unsqueeze", x, where, since=13, name="c")
    net.axes_op("Squeeze", net.op("Tanh", "c"), where, since=13, name="d")
    net.consume("d", 3, 2, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 1))[0])


@pytest.mark.parametrize("opset", [8, 13])
def test_a_squeeze_of_every_single_axis_leaves_the_channels(opset: int) -> None:
    """Without axes, a channel axis that pruning leaves at one position must not vanish."""
    net = Net(opset)
    net.op("Squeeze", net.image(2, 2, (1, 1)), name="c")
    net.linear("c", 2, 3, "y")
    model = net.model()
    assert ties(model, ("p.w", 0)) == [[1, 2]]
    lost = [check_random_plan(model, seed).removed("c", 1) for seed in range(8)]
    assert max(lost) == 1


def test_a_zero_copies_the_axis_at_the_same_place_only() -> None:
    """Axis 1 of the output equals axis 1 of the input in length, but holds its axis 2."""
    net = Net()
    x = net.op("Transpose", net.image(3, 2, (3, 2)), perm=[0, 2, 1, 3])
    net.op("Reshape", x, net.ints(6, 0, 2), name="c")
    net.axes_op("ReduceSum", "c", [1], since=13, name="y")
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2, 3]] * 2
    assert max(check_random_plan(model, seed).removed("c", 1) for seed in range(4)) > 0


@given(
    groups=st.integers(1, 3),
    width=st.integers(1, 4),
    batch=batches,
    length=st.sampled_from([3, "T"]),
    ahead=st.booleans(),
    seed=seeds,
)
def test_computed_shapes_stay_exact(
    groups: int, width: int, batch: Dim, length: Dim, ahead: bool, seed: int
) -> None:
    """Lengths read at run time stand before and behind constant ones."""
    net = Net(seed=seed)
    channels = groups * width
    x = net.op("Transpose", net.tokens(channels, batch, length), perm=[0, 2, 1])
    shape = net.op("Shape", x)
    n, t = (net.op("Gather", shape, net.ints(k)) for k in (0, 2))
    first = n if ahead else net.ints(0)
    target = net.op("Concat", first, net.ints(groups, width), t, axis=0)
    net.op("Reshape", x, target, name="c")
    net.axes_op("ReduceSum", "c", [1, 2], since=13, name="y")
    trial = check_random_plan(net.model(), seed)
    if channels > 1:
        assert all(ties(trial.model, ("p.w", 1))[0])


def test_a_shape_constant_that_several_nodes_read_is_not_edited_in_place() -> None:
    net = Net()
    shape = net.ints(1, 6)
    a, b = net.image(6, 1, (1, 1), "a"), net.image(6, 1, (1, 1), "b")
    net.linear(net.op("Reshape", a, shape), 6, 2, "y")
    net.linear(net.op("Reshape", b, shape), 6, 2, "z")
    model = net.model("y", "z")
    assert ties(model, ("a.w", 0), ("b.w", 0)) == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    trials = [check_random_plan(model, seed) for seed in range(4)]
    assert any(t.removed("a.w", 0) != t.removed("b.w", 0) for t in trials)
    assert np.array_equal(constant_of(value_of(model, shape)), [1, 6])

"""Slice and Split: parts of an axis, addressed by positions that move when channels go."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, value_of, why

from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.queries import constant_of

LAST, FIRST = 2**63 - 1, -(2**63)


def _slice(
    net: Net, x: str, starts: list[int], ends: list[int], axes: list[int], steps: list[int]
) -> str:
    """Slice by attributes before opset 10, which know no steps, by inputs from then on."""
    if net.opset < 10:
        return net.op("Slice", x, name="c", starts=starts, ends=ends, axes=axes)
    inputs = [net.ints(*numbers) for numbers in (starts, ends, axes, steps)]
    return net.op("Slice", x, *(inputs[:3] if steps == [1] * len(steps) else inputs), name="c")


@pytest.mark.parametrize(
    ("start", "end", "step", "classes"),
    [
        (1, 3, 1, [2, 3]),
        (-2, LAST, 1, [4, 5]),
        (0, -1, 1, [1, 2, 3, 4]),
        (LAST, FIRST, -1, [5, 4, 3, 2, 1]),
        (3, 0, -1, [4, 3, 2]),
        (-1, -(2**31), -1, [5, 4, 3, 2, 1]),
        (1, -100, -1, [2, 1]),
        (-100, 2, 1, [1, 2]),
    ],
)
def test_a_slice_takes_its_part_of_the_labels(
    start: int, end: int, step: int, classes: list[int]
) -> None:
    net = Net()
    _slice(net, net.image(5), [start], [end], [1], [step])
    net.consume("c", 4, 1, len(classes))
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2, 3, 4, 5], classes]
    for seed in range(5):
        check_random_plan(model, seed)


@pytest.mark.parametrize(
    ("start", "end", "step", "classes"),
    [
        (0, 5, 2, [1, 2, 3]),
        (1, 5, 2, [1, 2]),
        (-1, FIRST, -2, [3, 2, 1]),
        (3, 0, -2, [2, 1]),
        (2, LAST, 3, [1]),
    ],
)
def test_a_step_ties_the_positions_of_each_block(
    start: int, end: int, step: int, classes: list[int]
) -> None:
    net = Net()
    _slice(net, net.image(5), [start], [end], [1], [step])
    net.consume("c", 4, 1, len(classes))
    model = net.model()
    blocks = [k // abs(step) + 1 for k in range(5)]
    assert ties(model, ("p.w", 0), ("c", 1)) == [blocks, classes]
    lost = [check_random_plan(model, seed).removed("c", 1) for seed in range(8)]
    assert max(lost) > 0 or len(classes) == 1


def _computed(axis: int) -> Model:
    """Starts that are computed, on one axis of a normalised net."""
    net = Net()
    starts = net.input(1, name="s", dtype=7)
    net.op("Slice", net.image(5), starts, net.ints(LAST), net.ints(axis), name="c")
    net.consume("c", 4, 1, 5)
    model = net.model()
    Normalize().run(model, Context())
    return model


def test_bounds_that_are_computed_pin_their_axis_alone() -> None:
    reason = "is sliced at positions computed at run time at c.Slice (Slice)"
    assert why(_computed(1), "p.w", 0) == reason
    assert ties(_computed(2), ("p.w", 0), ("c", 1)) == [[1, 2, 3, 4, 5]] * 2
    check_random_plan(_computed(2), 3)


def test_axes_that_are_computed_pin_everything() -> None:
    net = Net()
    axes = net.input(1, name="a", dtype=7)
    net.op("Slice", net.image(5), net.ints(0), net.ints(4), axes, name="c")
    net.consume("c", 4, 1, 5)
    assert why(net.model(), "p.w", 0).startswith("the sliced axes are computed at run time")


@given(
    start=st.integers(-7, 7),
    end=st.one_of(st.integers(-7, 7), st.just(LAST)),
    step=st.sampled_from([1, -1]),
    channels=st.integers(1, 6),
    batch=batches,
    small=st.booleans(),
    seed=seeds,
)
def test_random_slices_beside_a_computed_one_stay_exact(
    start: int, end: int, step: int, channels: int, batch: Dim, small: bool, seed: int
) -> None:
    """Rows are cut at a length that another input has; the bounds are of one type."""
    end = min(end, 2**31 - 1)
    length = len(range(channels)[slice(start, None if step < 0 and end < -channels else end, step)])
    assume(length > 0)
    net = Net(17, seed)
    dtype = np.int32 if small else np.int64
    rows = net.op("Gather", net.op("Shape", net.input("T", name="o")), net.ints(0))
    rows = net.op("Cast", rows, to=6 if small else 7)
    ends = net.op("Concat", rows, net.constant(np.array([end], dtype)), axis=0)
    starts, axes, steps = (
        net.constant(np.array(n, dtype)) for n in ([0, start], [2, 1], [1, step])
    )
    net.op("Slice", net.image(channels, batch), starts, ends, axes, steps, name="c")
    net.consume("c", 4, 1, length)
    model = net.model()
    Normalize().run(model, Context())
    trial = check_random_plan(model, seed)
    assert all(ties(trial.model, ("c", 1))[0])


@given(
    bounds=st.lists(
        st.tuples(st.integers(-7, 7), st.one_of(st.integers(-7, 7), st.just(LAST))),
        min_size=1,
        max_size=2,
    ),
    order=st.sampled_from([[1, 2], [-3, 3], [1, -1]]),
    backwards=st.booleans(),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 9, 10, 11, 13]),
    seed=seeds,
)
def test_random_slices_stay_exact(
    bounds: list[tuple[int, int]],
    order: list[int],
    backwards: bool,
    channels: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    """A channel slice, and perhaps a spatial one, forwards or backwards."""
    step = -1 if backwards and opset >= 10 else 1
    starts, ends = [s for s, _ in bounds], [e for _, e in bounds]
    if step < 0:
        ends = [FIRST if e == LAST else e for e in ends]
    lengths = [
        len(range(n)[slice(s, None if e == FIRST else e, step)])
        for n, s, e in zip([channels, 4], starts, ends, strict=False)
    ]
    assume(all(lengths))
    order = [axis % 4 for axis in order] if opset < 10 else order
    net = Net(opset, seed)
    x = net.image(channels, batch)
    _slice(net, x, starts, ends, order[: len(bounds)], [step] * len(bounds))
    net.consume("c", 4, 1, lengths[0])
    net.consume(x, 4, 1, channels, name="z")
    trial = check_random_plan(net.model("y", "z"), seed)
    if opset >= 10:  # the inference of older ones gives up beyond the first position
        assert all(ties(trial.model, ("p.w", 0))[0])


@given(start=st.integers(0, 3), step=st.integers(2, 3), channels=st.integers(4, 8), seed=seeds)
def test_random_steps_stay_exact(start: int, step: int, channels: int, seed: int) -> None:
    """Space to depth by slices: rows and columns are stepped, channels are joined."""
    net = Net(seed=seed)
    x = net.image(channels, 1, (6, 6))
    parts = []
    for row in range(2):
        cut = [net.ints(row, 1), net.ints(6, 6), net.ints(2, 3), net.ints(step, step)]
        parts.append(net.op("Slice", x, *cut))
    cut = [net.ints(start), net.ints(LAST), net.ints(1), net.ints(step)]
    net.op("Slice", net.conv(x, channels, channels, name="q"), *cut, name="d")
    net.op("Concat", *parts[:1], parts[0], name="c", axis=1)
    net.consume("c", 4, 1, 2 * channels)
    net.op("Relu", "d", name="z")
    trial = check_random_plan(net.model("y", "z"), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


# Split


def test_a_split_gives_each_output_its_labels() -> None:
    net = Net()
    net.split("Split", net.image(5), net.ints(2, 3), names=["a", "b"], axis=-3)
    net.consume("a", 4, 1, 2)
    net.consume("b", 4, 1, 3, name="z")
    rows = ties(net.model("y", "z"), ("p.w", 0), ("a", 1), ("b", 1))
    assert rows == [[1, 2, 3, 4, 5], [1, 2], [3, 4, 5]]


def test_sizes_that_are_computed_pin() -> None:
    net = Net()
    sizes = net.input(2, name="s", dtype=7)
    net.split("Split", net.image(5), sizes, names=["a", "b"], axis=1)
    net.consume("a", 4, 1, 2)
    net.consume("b", 4, 1, 3, name="z")
    assert why(net.model("y", "z"), "p.w", 0).startswith("a shape is unknown")


@given(
    sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    form=st.sampled_from(["sizes", "even", "number"]),
    joined=st.booleans(),
    batch=batches,
    opset=st.sampled_from([8, 11, 13, 18, 22]),
    seed=seeds,
)
def test_random_splits_stay_exact(
    sizes: list[int], form: str, joined: bool, batch: Dim, opset: int, seed: int
) -> None:
    """By sizes, evenly, or by a number of outputs the last of which is shorter."""
    parts = len(sizes)
    if form == "even" and opset < 18:
        sizes = [sizes[0]] * parts
    elif form != "sizes" and opset >= 18:
        form, most = "number", -(-sum(sizes) // parts)
        assume((parts - 1) * most < sum(sizes))
        sizes = [most] * (parts - 1) + [sum(sizes) - (parts - 1) * most]
    else:
        form = "sizes"
    net = Net(opset, seed)
    x, names = net.image(sum(sizes), batch), [f"s{k}" for k in range(parts)]
    if form == "sizes" and opset >= 13:
        net.split("Split", x, net.ints(*sizes), names=names, axis=1)
    elif form == "sizes":
        net.split("Split", x, names=names, axis=1, split=sizes)
    elif form == "number":
        net.split("Split", x, names=names, axis=1, num_outputs=parts)
    else:
        net.split("Split", x, names=names, axis=1)
    ends = [net.consume(n, 4, 1, s, name=f"y{n}") for n, s in zip(names, sizes, strict=True)]
    if joined:
        order = [*names[::-1], names[0]]
        net.op("Concat", *(net.op("Sigmoid", n) for n in order), name="c", axis=1)
        ends.append(net.consume("c", 4, 1, sum(sizes) + sizes[0]))
    trial = check_random_plan(net.model(*ends), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


def test_split_sizes_are_written_out() -> None:
    net = Net(18)
    net.split("Split", net.image(5), names=["a", "b"], axis=1, num_outputs=2)
    net.consume("a", 4, 1, 3)
    net.consume("b", 4, 1, 2, name="z")
    trial = check_random_plan(net.model("y", "z"), 2)
    node = value_of(trial.small, "a").producer()
    assert trial.removed("p.w", 0) > 0
    assert "num_outputs" not in node.attributes
    kept = [3 - trial.removed("a", 1), 2 - trial.removed("b", 1)]
    assert np.array_equal(constant_of(node.inputs[1]), kept)

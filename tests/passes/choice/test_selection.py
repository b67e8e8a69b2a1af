"""Selection: permitted counts, strengths, and counts towards a cost."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Net, seeds

from irprune.channels import Channels, analyse
from irprune.groups import coupled_groups
from irprune.passes.choice.selection import Candidate, Selection, allowed_counts


@pytest.mark.parametrize(
    ("alive", "multiplicity", "align", "floor", "expected"),
    [
        (5, 1, 1, 1, [1, 2, 3, 4, 5]),
        (5, 1, 1, 3, [3, 4, 5]),
        (10, 1, 4, 1, [4, 8, 10]),
        (12, 1, 4, 5, [8, 12]),
        (6, 2, 4, 1, [2, 4, 6]),
        (6, 3, 4, 1, [4, 6]),
        (6, 2, 1, 5, [3, 4, 5, 6]),
        (3, 1, 8, 1, [3]),
        (3, 1, 1, 50, [3]),
        (3, 1, 1, 0, [0, 1, 2, 3]),
        (10, 2, 8, 0, [0, 4, 8, 10]),
    ],
)
def test_allowed_counts(
    alive: int, multiplicity: int, align: int, floor: int, expected: list[int]
) -> None:
    assert allowed_counts(alive, multiplicity, align, floor).tolist() == expected


@given(
    alive=st.integers(1, 40),
    multiplicity=st.integers(1, 6),
    align=st.integers(1, 16),
    floor=st.integers(0, 60),
)
def test_allowed_counts_are_all_counts_that_fit(
    alive: int, multiplicity: int, align: int, floor: int
) -> None:
    found = allowed_counts(alive, multiplicity, align, floor).tolist()
    least = min(floor, alive * multiplicity)
    fits = [
        count
        for count in range(1 if floor else 0, alive + 1)
        if count == alive or ((count * multiplicity) % align == 0 and count * multiplicity >= least)
    ]
    assert found == fits


def _candidates(
    channels: Channels, align: int = 1, scores: dict[str, list[float]] | None = None
) -> list[Candidate]:
    """Every group, its classes scored 1, 2, 3, ... or as given."""
    found = []
    for group in coupled_groups(channels):
        numbers = np.arange(1.0, len(group) + 1)
        if scores is not None:
            numbers = np.array(scores[group.name])
        order = np.argsort(numbers, kind="stable")
        site = group.producers[0]
        multiplicity = int((site.classes == group.classes[0]).sum())
        allowed = allowed_counts(len(group), multiplicity, align, 1)
        found.append(
            Candidate(group, group.classes[order][:, None], numbers[order], multiplicity, allowed)
        )
    return found


def _selection(
    channels: Channels, align: int = 1, scores: dict[str, list[float]] | None = None
) -> Selection:
    everything = np.ones(channels.count, np.bool_)
    nothing = np.zeros(channels.count, np.bool_)
    return Selection(channels, _candidates(channels, align, scores), everything, nothing)


def _chain(*widths: int) -> Channels:
    net = Net()
    x, before = net.input(1, 3, 8, 8), 3
    for k, width in enumerate(widths):
        x, before = net.conv(x, before, width, name=f"c{k}"), width
    net.conv(x, before, 3, name="y")
    return analyse(net.model().ir.graph)


def test_nearest_takes_the_larger_of_two() -> None:
    (candidate,) = _candidates(_chain(12), align=4)
    assert [candidate.nearest(n) for n in (0, 5.9, 6, 6.1, 10, 99)] == [4, 4, 8, 8, 12, 12]


def test_local_removes_the_same_fraction_rounded_down() -> None:
    selection = _selection(_chain(10, 7))
    assert selection.local(0).tolist() == [10, 7]
    assert selection.local(0.25).tolist() == [8, 6]
    assert selection.local(0.3).tolist() == [7, 5]
    assert selection.local(1).tolist() == [1, 1]


def test_spread_removes_the_least_important_of_all() -> None:
    scores = {"c0.w": [1, 2, 3, 4], "c1.w": [10, 0.5, 20, 2.5, 30, 40]}
    counts = _selection(_chain(4, 6), scores=scores).spread()
    assert counts(0).tolist() == [4, 6]
    assert counts(0.3).tolist() == [2, 5]
    assert counts(0.4).tolist() == [2, 4]
    assert counts(1).tolist() == [1, 1]


def test_spread_weighs_classes_by_their_positions() -> None:
    """The classes of a grouped convolution are two positions each: 8 of 12 in all."""
    net = Net()
    x = net.conv(net.input(1, 4, 4, 4), 4, 8, name="a", group=2)
    net.conv(net.conv(x, 8, 4, name="b"), 4, 2, name="y")
    channels = analyse(net.model().ir.graph, tie=True)
    scores = {"a.w": [1, 2, 9, 9], "b.w": [3, 4, 9, 9]}
    counts = _selection(channels, scores=scores).spread()
    assert counts(2 / 12).tolist() == [3, 4]
    assert counts(3 / 12).tolist() == [3, 4]
    assert counts(4 / 12).tolist() == [2, 4]
    assert counts(5 / 12).tolist() == [2, 3]


def test_kept_classes_are_the_most_important() -> None:
    channels = _chain(4)
    selection = _selection(channels, scores={"c0.w": [3, 1, 4, 2]})
    plan = channels.plan(selection.keep(np.array([2])))
    assert plan.axes["c0.w"][0].tolist() == [True, False, True, False]


def test_fixed_and_dead_classes_stay_so() -> None:
    channels = _chain(4)
    (candidate,) = _candidates(channels)
    first, second, *_ = candidate.alive
    alive, fixed = np.ones(channels.count, np.bool_), np.zeros(channels.count, np.bool_)
    alive[second], fixed[first] = False, True
    keep = Selection(channels, [candidate], alive, fixed).keep(np.array([1]))
    assert keep[first]
    assert not keep[second]
    assert channels.lengths(keep).tolist() == [2]


def test_an_axis_that_loses_everything_gets_its_best_class_back() -> None:
    net = Net()
    x = net.image(6, name="a")
    net.split("Split", x, net.ints(2, 4), names=["l", "r"], axis=1)
    net.conv("l", 2, 2, name="y")
    net.conv("r", 4, 2, name="z")
    channels = analyse(net.model("y", "z").ir.graph)
    selection = _selection(channels, scores={"a.w": [0.2, 0.1, 3, 4, 5, 6]})
    plan = channels.plan(selection.keep(np.array([2])))
    assert plan.axes["a.w"][0].tolist() == [True, False, False, False, True, True]
    assert plan.axes["l"][1].tolist() == [True, False]


@given(
    widths=st.lists(st.integers(4, 40), min_size=2, max_size=4),
    share=st.floats(0.2, 0.95),
    spread=st.booleans(),
    seed=seeds,
)
def test_a_cost_target_is_met_within_two_percent(
    widths: list[int], share: float, spread: bool, seed: int
) -> None:
    """Or as near as one class more or less in any group allows."""
    channels = _chain(*widths)
    random = np.random.default_rng(seed)
    scores = {f"c{k}.w": random.random(width).tolist() for k, width in enumerate(widths)}
    selection = _selection(channels, scores=scores)
    sizes = [3, *widths, 3]

    def cost(keep: np.ndarray) -> int:
        kept = [3, *(int(keep[c.alive].sum()) for c in selection.candidates), 3]
        return sum(a * b for a, b in pairwise(kept))

    full = sum(a * b for a, b in pairwise(sizes))
    target = share * full
    counts = selection.spread() if spread else selection.local
    if cost(selection.keep(counts(1.0))) > target:
        return
    chosen = selection.towards(target, cost, counts)
    gap = abs(cost(selection.keep(chosen)) - target)
    if gap <= 0.02 * target:
        return
    for k, candidate in enumerate(selection.candidates):
        for step in (-1, 1):
            trial = chosen.copy()
            trial[k] += step
            if trial[k] in candidate.allowed:
                assert abs(cost(selection.keep(trial)) - target) >= gap


@given(seed=seeds, target=st.floats(0.3, 1))
def test_aligned_targets_keep_aligned_widths(seed: int, target: float) -> None:
    channels = _chain(32, 48)
    random = np.random.default_rng(seed)
    scores = {"c0.w": random.random(32).tolist(), "c1.w": random.random(48).tolist()}
    selection = _selection(channels, align=8, scores=scores)
    full = np.ones(channels.count, np.bool_)

    def cost(keep: np.ndarray) -> int:
        return int(channels.lengths(keep).sum())

    chosen = selection.towards(target * cost(full), cost, selection.spread())
    assert all(count % 8 == 0 for count in chosen)

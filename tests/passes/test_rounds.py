"""What a round removes: shares of the remaining filters, and thresholds that grow."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import Net

from irprune.channels import Channels, analyse
from irprune.groups import Group, coupled_groups
from irprune.passes.rounds import at_most, kept_classes, kind_of, least_important, next_threshold


def test_a_share_is_of_what_remains() -> None:
    """20 % of 300, of the rest, and so on; halves are rounded up, and one filter stays."""
    rule = least_important(0.2, 1)
    width, widths = 300, []
    for _ in range(25):
        width -= rule(None, np.zeros(width))  # type: ignore[arg-type]
        widths.append(width)
    assert widths[:4] == [240, 192, 154, 123]
    assert widths[-1] == 2
    assert least_important(0.25, 1)(None, np.zeros(10)) == 3  # type: ignore[arg-type]
    assert least_important(0.9, 1)(None, np.zeros(1)) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "width", "removed"), [(0.35, 90, 32), (0.7, 45, 32), (0.29, 50, 15), (0.3, 5, 2)]
)
def test_a_share_is_the_number_as_it_is_written(share: float, width: int, removed: int) -> None:
    """0.35 of 90 is 31.5; the floats' product is below it."""
    assert least_important(share, 1)(None, np.zeros(width)) == removed  # type: ignore[arg-type]


def test_all_at_most_the_threshold_go_but_the_best() -> None:
    rule = at_most(0.2, 1)
    assert rule(None, np.array([0.0, 0.2, 0.21])) == 2  # type: ignore[arg-type]
    assert rule(None, np.array([0.0, 0.1])) == 1  # type: ignore[arg-type]
    assert rule(None, np.array([0.3])) == 0  # type: ignore[arg-type]


def test_the_threshold_grows_when_a_round_removed_too_little() -> None:
    how = {"step": 0.01, "hold": 3, "enough": 0.01}
    remaining, found, threshold = [1000], [], 0.0
    lost = [100, 5, 5, 20, 9, 10, 0]
    for number, removed in enumerate(lost, start=1):
        threshold = next_threshold(threshold, number, remaining, **how)  # type: ignore[arg-type]
        found.append(round(threshold, 4))
        remaining.append(remaining[-1] - removed)
    # r=4 sees the 5 of round 3, r=5 the 20 of round 4, r=6 the 9, r=7 the 10: exactly 1 %.
    assert found == [0, 0, 0, 0.01, 0.01, 0.02, 0.02]


def test_the_least_of_every_layer_go() -> None:
    net = Net()
    a = net.op("Relu", net.op("Conv", net.input(1, 3, 4, 4), net.weight(4, 3, 1, 1), name="c"))
    flat = net.op("Flatten", net.op("GlobalAveragePool", a))
    hidden = net.op("Relu", net.op("Gemm", flat, net.weight(4, 6)))
    net.op("Gemm", hidden, net.weight(6, 2), name="y")
    channels = analyse(net.model().ir.graph)
    groups = coupled_groups(channels)
    assert [kind_of(group) for group in groups] == ["conv", "dense"]
    scores = [np.array([3.0, 1, 2, 4]), np.array([6.0, 5, 4, 3, 2, 1])]
    keep = kept_classes(channels, list(zip(groups, scores, strict=True)), least_important(0.5, 1))
    assert keep[groups[0].classes].tolist() == [True, False, False, True]
    assert keep[groups[1].classes].tolist() == [True, True, True, False, False, False]


@pytest.fixture
def two_rows() -> tuple[Channels, Group]:
    """Six channels that a convolution reads in two groups."""
    net = Net()
    a = net.op("Conv", net.input(1, 3, 4, 4), net.weight(6, 3, 1, 1), name="c")
    b = net.op("Conv", net.op("Relu", a), net.weight(4, 3, 3, 3), group=2)
    net.op("Conv", b, net.weight(2, 4, 1, 1), name="y")
    channels = analyse(net.model().ir.graph)
    return channels, next(g for g in coupled_groups(channels) if g.rows == 2 and len(g) == 6)


def test_groups_of_a_convolution_lose_equally_many(two_rows: tuple[Channels, Group]) -> None:
    """Of each convolution group the worst goes, whatever the other's scores."""
    channels, group = two_rows
    scores = np.empty(6)
    scores[np.argsort(group.cells, kind="stable")] = [1, 2, 3, 10, 30, 20]
    keep = kept_classes(channels, [(group, scores)], least_important(0.34, 1))
    gone = ~keep[group.classes]
    assert sorted(scores[gone]) == [1, 10]


@pytest.mark.parametrize("least", [1, 2])
def test_every_group_of_a_convolution_keeps_its_least(
    two_rows: tuple[Channels, Group], least: int
) -> None:
    channels, group = two_rows
    keep = kept_classes(channels, [(group, np.zeros(6))], at_most(0, least))
    assert np.bincount(group.cells[keep[group.classes]]).tolist() == [least, least]


@pytest.mark.parametrize("rule", [least_important(0.5, 3), at_most(9, 3)])
def test_a_layer_keeps_its_least(rule: object) -> None:
    assert callable(rule)
    assert rule(None, np.arange(4.0)) == 1
    assert rule(None, np.arange(2.0)) == 0

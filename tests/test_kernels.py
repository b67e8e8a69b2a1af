"""Kernels: which nodes run as one, and what work they are."""

from __future__ import annotations

import numpy as np
import pytest

from irprune.channels import Channels, analyse
from irprune.cost import CostModel
from irprune.designs import designs, kept, on_steps, ranks
from irprune.groups import coupled_groups
from irprune.kernels import NodeKernel, split
from irprune.plan import Plan
from tests.strategies import Net


def _residual() -> tuple[Channels, list[NodeKernel]]:
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 8, 8), 3, 32, name="a"))
    y = net.op("Relu", net.conv(x, 32, 48, name="b"))
    y = net.conv(y, 48, 32, name="c")
    net.conv(net.op("Relu", net.op("Add", y, x)), 32, 5, name="d")
    channels = analyse(net.model().ir.graph)
    return channels, split(channels, {})


def test_what_follows_element_by_element_belongs_to_the_kernel() -> None:
    _, kernels = _residual()
    ops = [[node.op_type for node in kernel.nodes] for kernel in kernels]
    assert ops == [["Conv", "Relu"], ["Conv", "Relu"], ["Conv", "Add", "Relu"], ["Conv"]]


def test_the_work_adds_up_to_the_costs_of_the_graph() -> None:
    channels, kernels = _residual()
    graph = channels.graph
    for keep in (np.ones(channels.count, np.bool_), _half(channels)):
        costs = CostModel(graph).of_plan(channels.plan(keep))
        lengths = channels.lengths(keep)
        works = [kernel.work(lengths[None, kernel.axes]) for kernel in kernels]
        assert sum(work.macs[0] for work in works) == costs.macs
        assert sum(work.weights[0] for work in works) == costs.weight_bytes


def test_work_is_rounded_up_to_a_step() -> None:
    _, kernels = _residual()
    kernel = kernels[1]
    just = kernel.work(np.array([[32, 48]]))
    over = kernel.work(np.array([[17, 33]]), step=16)
    assert over.macs[0] == just.macs[0] and over.outputs[0] == just.outputs[0]


def test_equal_kernels_have_equal_signatures_and_others_not() -> None:
    net = Net()
    x = net.input(1, 3, 8, 8)
    for k, width in enumerate((16, 24, 40)):
        x = net.conv(x, (3, 16, 24)[k], width, name=f"c{k}")
    net.conv(x, 40, 4, name="y")
    signatures = [k.signature for k in split(analyse(net.model().ir.graph), {})]
    assert signatures[1] == signatures[2]
    assert len(set(signatures)) == 3


def test_roles_say_where_an_axis_stands() -> None:
    _, kernels = _residual()
    conv = kernels[1]
    assert len(conv.axes) == 2
    assert conv.columns("in") != conv.columns("out")
    assert sorted(conv.columns("in") + conv.columns("out")) == conv.columns("all") == [0, 1]


def test_designed_plans_are_valid_and_differ() -> None:
    channels, _ = _residual()
    groups = coupled_groups(channels)
    plans = designs(channels, groups, 16)
    seen = {tuple(channels.lengths(next(plans)).tolist()) for _ in range(12)}
    assert len(seen) > 5
    assert all(min(lengths) >= 1 for lengths in seen)
    assert any(length % 16 for lengths in seen for length in lengths)


def test_uniform_designs_stand_on_steps() -> None:
    sizes = np.array([64, 48, 8, 100])
    assert on_steps(sizes * 0.5, sizes, 16).tolist() == [32, 32, 8, 48]


def test_places_count_within_cells() -> None:
    channels, _ = _residual()
    for group in coupled_groups(channels):
        places = ranks(group)
        for cell in np.unique(group.cells):
            inside = np.sort(places[group.cells == cell])
            assert inside.tolist() == list(range(len(inside)))


@pytest.mark.parametrize("count", [1, 7])
def test_a_plan_keeps_as_many_as_asked(count: int) -> None:
    channels, _ = _residual()
    groups = coupled_groups(channels)
    keep = kept(channels, groups, [count] * len(groups))
    plan: Plan = channels.plan(keep)
    assert {int(np.sum(m)) for axes in plan.axes.values() for m in axes.values()} == {count}


def _half(channels: Channels) -> np.ndarray:
    groups = coupled_groups(channels)
    return kept(channels, groups, [int(ranks(g).max() + 1) // 2 for g in groups])

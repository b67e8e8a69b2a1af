"""Counted costs as sums over kernels: they equal what `CostModel` says of the same kept classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Net, seeds

from irprune import additive
from irprune.channels import Channels, analyse
from irprune.cost import CostModel
from irprune.protocols import AdditiveCost


def _graph() -> ir.Graph:
    """A residual block, a Concat of three parts and an Einsum."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 8, 8), 3, 12, 3, 3, name="a"))
    y = net.op("Relu", net.conv(x, 12, 20, name="b"))
    x = net.op("Add", x, net.conv(y, 20, 12, name="c"))
    x = net.op("Concat", x, y, net.conv(x, 12, 6, name="d"), axis=1)
    net.conv(x, 38, 5, name="e")
    graph = net.model().ir.graph
    assert isinstance(graph, ir.Graph)
    return graph


def _total(cost: AdditiveCost, lengths: np.ndarray) -> float:
    terms = (cost.terms(k, lengths[None, list(c.axes)])[0] for k, c in enumerate(cost.kernels))
    return cost.constant + float(sum(terms))


def _kept(channels: Channels, seed: int) -> np.ndarray:
    keep = np.random.default_rng(seed).random(channels.count) < 0.6
    keep[0] = True
    return keep


def _sizer(model: CostModel, channels: Channels, lengths: np.ndarray) -> Any:
    index = channels.unique_axes[2]

    def size(value: ir.Value, axis: int) -> int:
        number = index.get((value, axis))
        return model.full_size(value, axis) if number is None else int(lengths[number])

    return size


@given(seed=seeds)
def test_the_kernels_add_up_to_the_cost(seed: int) -> None:
    graph = _graph()
    channels, model = analyse(graph), CostModel(graph)
    keep = _kept(channels, seed)
    lengths, costs = channels.lengths(keep), model.of_plan(channels.plan(keep))
    assert _total(additive.macs(model, channels), lengths) == costs.macs
    assert _total(additive.params(model, channels), lengths) == costs.params
    memory = additive.Memory(model, channels)
    position, needed = memory.worst(_sizer(model, channels, lengths))
    assert needed == costs.memory_bytes == costs.weight_bytes + costs.peak_activation_bytes
    assert _total(memory.at(position), lengths) == needed


@given(seed=seeds, count=st.integers(1, 5))
def test_many_lengths_at_once_are_each_of_them(seed: int, count: int) -> None:
    graph = _graph()
    channels, model = analyse(graph), CostModel(graph)
    cost = additive.macs(model, channels)
    lengths = np.stack([channels.lengths(_kept(channels, seed + k)) for k in range(count)])
    for number, kernel in enumerate(cost.kernels):
        rows = lengths[:, list(kernel.axes)]
        alone = [cost.terms(number, row[None])[0] for row in rows]
        assert cost.terms(number, rows).tolist() == alone


def test_kernels_of_equal_axes_are_one() -> None:
    graph = _graph()
    channels = analyse(graph)
    cost = additive.params(CostModel(graph), channels)
    axes = [kernel.axes for kernel in cost.kernels]
    assert len(set(axes)) == len(axes)
    assert any("," in kernel.name for kernel in cost.kernels)


@pytest.mark.parametrize("equation", ["nchw,cm->nmhw", "...c,cm->...m"])
def test_an_einsum_counts_many_lengths_at_once(equation: str) -> None:
    net = Net()
    x = net.conv(net.input(1, 3, 4, 7), 3, 7, name="a")
    weight = net.weight(7, 5, name="w")
    net.op("Einsum", x, weight, equation=equation, name="y")
    graph = net.model().ir.graph
    channels, model = analyse(graph), CostModel(graph)
    keep = np.ones(channels.count, np.bool_)
    assert _total(additive.macs(model, channels), channels.lengths(keep)) == model.full().macs

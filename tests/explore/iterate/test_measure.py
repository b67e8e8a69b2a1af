"""Whose parameters drive the threshold of AIAP, and that every removal shows in them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from strategies import Net

from irprune import Plan
from irprune.channels import Channels, analyse
from irprune.explore.iterate import measure
from irprune.groups import coupled_groups
from irprune.passes.rounds import Kind


def _linear(net: Net, x: str, *shape: int, name: str = "") -> str:
    """A dense layer as torch exports one on sequences."""
    return net.op("MatMul", x, net.op("Transpose", net.weight(*shape), perm=[1, 0]), name=name)


def _sequence(head: str) -> Channels:
    net = Net()
    hidden = net.op("Relu", _linear(net, net.input("N", 4, 8), 6, 8))
    if head == "Gemm":
        mean = net.op("ReduceMean", hidden, axes=[1], keepdims=0)
        net.op("Gemm", mean, net.weight(6, 3), name="y")
    elif head == "Einsum":
        net.op("Einsum", hidden, net.weight(6, 3), equation="ntc,cd->nd", name="y")
    else:
        _linear(net, hidden, 3, 6, name="y")
    return analyse(net.model().ir.graph)


def _depthwise(_: str) -> Channels:
    net = Net()
    wide = net.op("Conv", net.input("N", 3, 5, 5), net.weight(6, 3, 1, 1))
    deep = net.op("Relu", net.op("Conv", wide, net.weight(6, 1, 3, 3), group=6))
    flat = net.op("Flatten", net.op("GlobalAveragePool", deep))
    net.op("Gemm", flat, net.weight(6, 4), name="y")
    return analyse(net.model().ir.graph)


@pytest.mark.parametrize(
    ("make", "head", "kind", "whole", "left"),
    [
        (_sequence, "MatMul", "dense", 6 * 8 + 3 * 6, 4 * 8 + 3 * 6),
        (_sequence, "Gemm", "dense", 6 * 8 + 3 * 6, 4 * 8 + 3 * 6),
        (_sequence, "Einsum", "dense", 6 * 8 + 3 * 6, 4 * 8 + 3 * 6),
        (_depthwise, "Gemm", "conv", 6 * 3 + 6 * 9, 4 * 3 + 4 * 9),
    ],
)
def test_what_is_removed_shows_in_the_parameters_of_its_kind(
    make: Callable[[str], Channels], head: str, kind: Kind, whole: int, left: int
) -> None:
    channels = make(head)
    (group,) = coupled_groups(channels)
    keep = np.ones(channels.count, np.bool_)
    keep[group.classes[:2]] = False
    assert measure.threshold_kind(channels) == kind
    assert measure.own_parameters(channels, Plan.empty(), kind) == whole
    assert measure.own_parameters(channels, channels.plan(keep), kind) == left

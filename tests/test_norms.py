"""Norms of several nodes are recognised, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from norm_nets import FORMS, NormNet

from irprune.norms import find_norms


def _found(net: NormNet) -> list[tuple[str, list[str]]]:
    """The norms of a graph, with the outputs of their nodes."""
    norms = dict.fromkeys(find_norms(net.model().ir.graph).values())
    return [(norm.name, [node.outputs[0].name or "" for node in norm.nodes]) for norm in norms]


@pytest.mark.parametrize(("kind", "form"), [(k, f) for k, forms in FORMS.items() for f in forms])
@pytest.mark.parametrize("opset", [11, 17, 22])
@pytest.mark.parametrize("axis", [1, -1])
def test_norms_of_several_nodes(kind: str, form: str, opset: int, axis: int) -> None:
    net = NormNet(opset)
    net.written_out(kind, form, net.input("N", 4, 3, 4), axis, 4, 4)
    net.op("Relu", "c", name="y")
    members = {
        "LayerNormalization": ["mean", "variance"],
        "RMSNormalization": ["variance"],
        "LpNormalization": ["length"],
    }
    assert _found(net) == [(kind, members[kind])]


def test_a_group_norm_of_several_nodes() -> None:
    net = NormNet()
    x = net.op("Reshape", net.input("N", 6, 4, 4), net.ints(0, 2, -1))
    net.op("InstanceNormalization", x, net.weight(2), net.weight(2), name="n")
    net.op("Reshape", "n", net.ints(-1, 6, 4, 4), name="y")
    assert _found(net) == [("GroupNormalization", ["n"])]


def test_the_centre_must_be_the_mean_over_the_same_axes() -> None:
    """Otherwise the root mean square is not the deviation."""
    net = NormNet()
    x = net.input("N", 4, 4)
    centred = net.op("Sub", x, net.reduce("ReduceMean", x, 1))
    variance = net.reduce("ReduceMean", net.op("Mul", centred, centred), 2, "variance")
    deviation = net.op("Sqrt", net.op("Add", variance, net.scalar(1e-5)))
    net.op("Div", centred, deviation, name="y")
    assert _found(net) == [("RMSNormalization", ["variance"])]


def _deviation(net: NormNet, x: str) -> None:
    """A standard deviation by which nothing is divided."""
    centred = net.op("Sub", x, net.reduce("ReduceMean", x, 1))
    variance = net.reduce("ReduceMean", net.op("Mul", centred, centred), 1)
    net.op("Sqrt", net.op("Add", variance, net.scalar(1e-5)), name="y")


def _cubes(net: NormNet, x: str) -> None:
    mean = net.reduce("ReduceMean", net.op("Pow", x, net.scalar(3)), 1)
    net.op("Div", x, net.op("Sqrt", net.op("Add", mean, net.scalar(1e-5))), name="y")


def _other_data(net: NormNet, x: str) -> None:
    """The length of one value divides another."""
    net.op("Div", net.op("Exp", x), net.reduce("ReduceL2", x, 1), name="y")


def _divided_length(net: NormNet, x: str) -> None:
    net.op("Div", net.reduce("ReduceL2", x, 1), x, name="y")


def _gate(net: NormNet, x: str) -> None:
    """Squeeze and excitation: a mean, and a product with the data."""
    net.op("Mul", x, net.op("Sigmoid", net.reduce("ReduceMean", x, 1)), name="y")


def _instance_norm(net: NormNet, x: str) -> None:
    net.op("InstanceNormalization", x, net.weight(4), net.weight(4), name="y")


@pytest.mark.parametrize(
    "build", [_deviation, _cubes, _other_data, _divided_length, _gate, _instance_norm]
)
def test_lookalikes(build: Callable[[NormNet, str], None]) -> None:
    net = NormNet()
    build(net, net.input("N", 4, 4))
    assert _found(net) == []

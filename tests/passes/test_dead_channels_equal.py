"""`dead-channels`: equal and unused channels, and weights in unusual places."""

from __future__ import annotations

import numpy as np
import pytest
from masked_nets import Example, counts, removed, select

from irprune.roles import PARAMETER, TRAINED, predecessors, trained


def test_equal_channels_merge_through_normalisation_and_padding() -> None:
    net = Example()
    w = net.filters(6, 3)
    w[3] = w[5] = w[0]
    x = net.layer(net.input(1, 3, 8, 8), w, name="a")
    parameters = net.random.uniform(0.5, 1.5, size=(4, 6))
    parameters[:, 3] = parameters[:, 0]
    net.layer(net.op("Relu", net.norm(x, *parameters)), net.filters(4, 6), name="y")
    model = net.model()
    report = select(model)
    assert counts(report) == {"duplicate": 1} and report["edited"] == {"folded": 0, "merged": 1}
    assert removed(model, "a.w", 0) == [3]


def test_equal_channels_merge_only_if_every_reader_agrees() -> None:
    net = Example()
    x = net.input(1, 3, 8, 8)
    w, v = net.filters(4, 3), net.filters(4, 3)
    w[2] = w[3] = w[0]
    v[2] = v[0]
    a = net.layer(x, w, name="a")
    net.layer(a, net.filters(3, 4), name="y")
    net.layer(net.op("Add", a, net.layer(x, v, name="b")), net.filters(3, 4), name="z")
    model = net.model("y", "z")
    assert counts(select(model)) == {"duplicate": 1}
    assert removed(model, "a.w", 0) == [2] == removed(model, "b.w", 0)


def test_a_layer_that_only_repeats_another_keeps_one_channel() -> None:
    net = Example()
    x, w = net.input(1, 3, 8, 8), net.filters(4, 3)
    a, b = net.layer(x, w, name="a"), net.layer(x, w, name="b")
    net.layer(net.op("Concat", a, net.op("Relu", b), a, b, axis=1), net.filters(3, 16), name="y")
    model = net.model()
    report = select(model)
    assert counts(report) == {"duplicate": 3}
    assert removed(model, "a.w", 0) == [1, 2, 3] and removed(model, "b.w", 0) == []


def test_channels_that_nothing_uses() -> None:
    net = Example()
    x = net.layer(net.input(1, 3, 8, 8), net.filters(6, 3), name="a")
    middle = net.filters(5, 6)
    middle[:, 2] = 0
    middle[:4, 3] = 0
    x = net.layer(net.op("Relu", x), middle, name="b")
    last = net.filters(2, 5)
    last[:, 4] = 0
    net.layer(net.op("Relu", x), last, name="y")
    model = net.model()
    assert counts(select(model)) == {"unused": 3}
    assert removed(model, "a.w", 0) == [2, 3] and removed(model, "b.w", 0) == [4]


def test_a_wholly_dead_layer_keeps_one_channel_and_frees_what_feeds_it() -> None:
    net = Example()
    x = net.layer(net.input(1, 3, 8, 8), net.filters(6, 3), name="a")
    x = net.layer(net.op("Relu", x), net.filters(4, 6, zero=(0, 1, 2, 3)), np.zeros(4), "b")
    net.layer(x, net.filters(2, 4), np.ones(2), "y")
    model = net.model()
    report = select(model)
    assert counts(report) == {"zero": 3, "unused": 5}
    assert report["kept"] == {"it is the last one on a tensor axis": 2}
    assert len(removed(model, "a.w", 0)) == 5 and len(removed(model, "b.w", 0)) == 3


def test_products_of_activations_lose_zeros_only() -> None:
    net = Example()
    left, right = (
        net.constant(net.filters(2, 6, 1, zero=())[:, :, 0, 0], f"{name}.w") for name in "ab"
    )
    model_input = net.input(1, 3, 2)
    a, b = net.op("MatMul", model_input, left), net.op("MatMul", model_input, right)
    mask = np.array([1, 0, 1, 1, 0, 1], np.float32)
    a = net.op("Mul", a, net.constant(mask))
    net.op("MatMul", a, net.op("Transpose", b, perm=[0, 2, 1]), name="y")
    model = net.model()
    assert counts(select(model)) == {"zero": 2}
    assert removed(model, "a.w", 1) == [1, 4] == removed(model, "b.w", 1)


def test_masks_are_multiplied_into_weights() -> None:
    net = Example()
    w, mask = net.constant(net.filters(5, 3), "a.orig"), np.ones((5, 1, 1, 1), bool)
    mask[[1, 3]] = False
    mask = net.op("Cast", net.constant(mask, "a.mask"), to=1)
    x = net.op("Conv", net.input(1, 3, 8, 8), net.op("Mul", mask, w, name="a.w"), name="a")
    net.layer(x, net.filters(4, 5), name="y")
    model = net.model()
    model.ir.graph.initializers["a.orig"].metadata_props[PARAMETER] = TRAINED
    report = select(model)
    assert counts(report) == {"zero": 2} and report["masks"] == 2
    assert removed(model, "a.w", 0) == [1, 3]
    assert model.ir.graph.initializers.keys() == {"a.w", "y.w"}
    assert trained(model.ir) == {"a.w"}
    assert predecessors(model.ir.graph.initializers["a.w"])[-1] == "a.orig"


@pytest.mark.parametrize("left", [True, False])
def test_transposed_weights_are_seen_through(left: bool) -> None:
    net = Example()
    w = net.filters(4, 3, 1)[:, :, 0, 0]
    w[3] = w[1]
    turn = {"perm": [1, 0]}
    x = net.op("MatMul", net.input(7, 3), net.op("Transpose", net.constant(w, "a.w"), **turn))
    x = net.op("Add", x, net.constant(np.array([0, 1, 2, 1], np.float32)))
    v = net.weight(5, 4, name="y.w") if not left else net.weight(4, 5, name="y.w")
    v = net.op("Transpose", v, **turn)
    if left:
        net.op("MatMul", v, net.op("Transpose", x, **turn), name="y")
    else:
        net.op("MatMul", x, v, name="y")
    model = net.model()
    assert counts(select(model)) == {"duplicate": 1}
    assert removed(model, "a.w", 0) == [3] == removed(model, "y.w", 0 if left else 1)


def test_shared_weights_are_not_edited() -> None:
    net = Example()
    x, w = net.input(1, 3, 8, 8), net.filters(5, 3, zero=(1, 2))
    shared = net.constant(net.filters(4, 5, 1), "s")
    shift = [1, 1, 0, 1, 1]
    for name in "yz":
        net.op("Conv", net.layer(x, w, shift, f"a{name}"), shared, name=name)
    model = net.model("y", "z")
    assert counts(select(model)) == {"zero": 1}

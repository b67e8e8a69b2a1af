"""Weights drawn anew give a proof the power that trained ones may lack."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import Net, compacted, random_keep

from irprune import api
from irprune.channels import analyse
from irprune.model import Model
from irprune.proof.drawn import draw_initializers


def _dead() -> Model:
    """Two linear layers; the ReLU between them never lets anything through."""
    net = Net(seed=0)
    bias = net.constant(np.full(12, -100, np.float32), "bias")
    x = net.op("Gemm", net.input("N", 6), net.weight(12, 6, name="a"), bias, transB=1)
    x = net.op("Clip", net.op("Relu", x), "", net.constant(np.float32(9), "most"))
    net.op("Gemm", x, net.weight(4, 12, name="b"), name="y", transB=1)
    return net.model("y")


def _numbers(model: Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.ir.graph.initializers.items()
        if value.const_value is not None
    }


def test_a_dead_layer_is_proved_with_other_weights() -> None:
    model = _dead()
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, 1))
    assert api.verify(model, compacted(model, plan), plan).verdict == "inconclusive"
    draw_initializers(model.ir, 3)
    assert api.verify(model, compacted(model, plan), plan).verdict == "proved"


@pytest.mark.parametrize("seed", [0, 1])
def test_what_trains_is_drawn_and_nothing_else(seed: int) -> None:
    model = _dead()
    before = _numbers(model)
    draw_initializers(model.ir, seed)
    after = _numbers(model)
    for name, numbers in before.items():
        assert (after[name].dtype, after[name].shape) == (numbers.dtype, numbers.shape)
        assert (after[name] == numbers).all() == (name == "most")
    again = _dead()
    draw_initializers(again.ir, seed)
    for name, numbers in _numbers(again).items():
        np.testing.assert_array_equal(numbers, after[name])

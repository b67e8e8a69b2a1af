"""Where channels are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from strategies import Net

from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.passbase import Context
from irprune.passes.scores.activity import Activity
from irprune.passes.scores.calibration import Samples
from irprune.passes.scores.sites import measured_at

IMAGES = np.random.default_rng(1).normal(size=(7, 3, 6, 6)).astype(np.float32)
LABELS = np.arange(7) % 4


def _sites(net: Net) -> list[set[str]]:
    channels = analyse(net.model().ir.graph)
    return [{site.name for site in measured_at(channels, g)} for g in coupled_groups(channels)]


def test_a_gated_non_linearity_is_measured_at_its_product() -> None:
    net = Net()
    c = net.op("Conv", net.input(1, 3, 6, 6), net.weight(5, 3, 3, 3), name="c")
    silu = net.op("Mul", c, net.op("Sigmoid", c, name="s"), name="silu")
    net.op("Conv", silu, net.weight(4, 5, 3, 3), name="y")
    assert _sites(net) == [{"silu"}]


def test_without_a_non_linearity_the_consumer_s_input_counts() -> None:
    net = Net()
    c = net.op("Conv", net.input(1, 3, 6, 6), net.weight(5, 3, 3, 3), name="c")
    net.op("Conv", c, net.weight(4, 5, 3, 3), name="y")
    assert _sites(net) == [{"c"}]


def test_a_residual_stream_is_measured_after_each_sum() -> None:
    net = Net()
    a = net.op("Relu", net.op("Conv", net.input(1, 3, 6, 6), net.weight(5, 3, 1, 1)), name="a")
    inner = net.op("Relu", net.op("Conv", a, net.weight(4, 5, 1, 1)), name="inner")
    total = net.op("Add", net.op("Conv", inner, net.weight(5, 4, 1, 1)), a)
    net.op("Conv", net.op("Relu", total, name="b"), net.weight(2, 5, 1, 1), name="y")
    assert _sites(net) == [{"a", "b"}, {"inner"}]


def test_each_layer_of_a_coupled_group_is_measured_on_its_own_way() -> None:
    """A linear bottleneck adds to a stem with a Relu: what it writes is seen where it is read."""
    net = Net()
    stem = net.op("Relu", net.op("Conv", net.input(1, 3, 6, 6), net.weight(5, 3, 1, 1)), name="a")
    inner = net.op("Relu", net.op("Conv", stem, net.weight(4, 5, 1, 1)), name="inner")
    stream = net.op("Add", net.op("Conv", inner, net.weight(5, 4, 1, 1)), stem, name="stream")
    net.op("Conv", stream, net.weight(2, 5, 1, 1), name="y")
    assert _sites(net) == [{"a", "stream"}, {"inner"}]


def test_a_weight_that_two_layers_share_is_measured_behind_both() -> None:
    net = Net()
    x, w = net.input(1, 3, 6, 6), net.weight(5, 3, 1, 1)
    first = net.op("Relu", net.op("Conv", x, w), name="first")
    second = net.op("Relu", net.op("Conv", net.op("Neg", x), w), name="second")
    sums = [net.op("Conv", value, net.weight(2, 5, 1, 1)) for value in (first, second)]
    net.op("Add", *sums, name="y")
    assert _sites(net) == [{"first", "second"}]


def _halves(right: bool = True) -> Net:
    """A convolution of which one half is read behind a Relu, the other as it is or not at all."""
    net = Net()
    c = net.op("Conv", net.input("N", 3, 6, 6), net.weight(8, 3, 3, 3, name="w"), name="c")
    a, b = net.split("Split", c, net.ints(4, 4), names=["a", "b"], axis=1)
    y = net.op("Conv", net.op("Relu", a, name="r"), net.weight(5, 4, 4, 4, name="va"))
    if right:
        y = net.op("Add", y, net.op("Conv", b, net.weight(5, 4, 4, 4, name="vb")))
    net.op("Flatten", y, name="y")
    return net


def test_channels_without_a_non_linearity_are_measured_beside_peers_with_one() -> None:
    assert _sites(_halves()) == [{"r", "b"}]


def test_channels_are_measured_nowhere_where_one_of_them_leads_nowhere() -> None:
    assert _sites(_halves(right=False)) == [set()]


_BY_HAND: dict[str, Callable[[Any, Any], Any]] = {
    "mean-activation": lambda a, g: np.abs(a).mean((0, 2, 3)),
    "sum-activation": lambda a, g: np.abs(a).sum((2, 3)).mean(0),
    "apoz": lambda a, g: (a != 0).mean((0, 2, 3)),
    "taylor": lambda a, g: np.abs((a * g).mean((2, 3))).mean(0),
    "fisher": lambda a, g: ((a * g).sum((2, 3)) ** 2).mean(0) / 2,
}


@pytest.mark.parametrize("aggregate", ["mean", "max", "sum"])
@pytest.mark.parametrize("criterion", list(_BY_HAND))
def test_each_channel_scores_by_what_its_own_readers_see(
    criterion: Any, aggregate: Any, context: Context
) -> None:
    import torch

    model = _halves().model()
    w, va, vb = (
        torch.from_numpy(np.array(model.ir.graph.initializers[n].const_value.numpy()))  # type: ignore[union-attr]
        for n in ("w", "va", "vb")
    )
    conv = torch.nn.functional.conv2d
    seen = conv(torch.from_numpy(IMAGES), w)
    seen = torch.cat([seen[:, :4].relu(), seen[:, 4:]], 1).requires_grad_()
    logits = (conv(seen[:, :4], va) + conv(seen[:, 4:], vb)).flatten(1)
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS), reduction="sum").backward()
    assert seen.grad is not None
    wanted = _BY_HAND[criterion](seen.detach().numpy(), seen.grad.numpy())

    channels = analyse(model.ir.graph)
    (group,) = coupled_groups(channels)
    samples = Samples({"x": IMAGES}, LABELS)
    scored = Activity(model, channels, [group], criterion, samples, context, aggregate=aggregate)
    found = scored.of(group)
    assert found is not None and np.allclose(found, wanted, rtol=1e-4)

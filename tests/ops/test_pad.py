"""Pad: added positions have classes of their own, copied and cut ones stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

from irprune.passbase import Context
from irprune.passes.normalize import Normalize


def _pad(net: Net, x: str, pads: list[int], mode: str = "constant", value: float = 0.5) -> str:
    """Pad by attribute before opset 11, by input from then on."""
    if net.opset < 11:
        return net.op("Pad", x, name="c", pads=pads, mode=mode, value=value)
    inputs = [net.ints(*pads), net.constant(np.float32(value))]
    return net.op("Pad", x, *inputs, name="c", mode=mode)


def test_added_channels_have_classes_of_their_own() -> None:
    net = Net()
    _pad(net, net.image(3), [0, 1, 0, 0, 0, 2, 0, 0])
    net.consume("c", 4, 1, 6)
    assert ties(net.model(), ("p.w", 0), ("c", 1)) == [[1, 2, 3], [4, 1, 2, 3, 5, 6]]


@pytest.mark.parametrize(("mode", "opset"), [("edge", 8), ("reflect", 13), ("wrap", 19)])
def test_copies_pin_the_axis_they_come_from(mode: str, opset: int) -> None:
    net = Net(opset)
    x = net.image(3)
    _pad(net, x, [0, 1, 0, 0, 0, 0, 0, 0], mode)
    net.consume("c", 4, 1, 4)
    assert why(net.model(), "p.w", 0).startswith("is padded with copies of its positions")


def test_other_axes_pass_through_whatever_the_mode() -> None:
    net = Net()
    _pad(net, net.image(3), [0, 0, 1, 1, 0, 0, 1, 1], "reflect")
    net.consume("c", 4, 1, 3)
    assert ties(net.model(), ("p.w", 0), ("c", 1)) == [[1, 2, 3]] * 2


def test_computed_pads_pin() -> None:
    net = Net()
    net.op("Pad", net.image(3), net.input(8, name="r", dtype=7), name="c")
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("is padded by a computed length")


channel_pads = st.tuples(st.integers(-2, 3), st.integers(-2, 3))


@given(
    pads=channel_pads,
    spatial=st.tuples(*[st.integers(-1, 2)] * 2),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 10, 11, 13, 22]),
    seed=seeds,
)
def test_random_constant_pads_stay_exact(
    pads: tuple[int, int],
    spatial: tuple[int, int],
    channels: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    """The option-A shortcut of CIFAR residual networks, and cuts."""
    length = channels + sum(pads)
    assume(length > 0 and channels + min(pads) > 0)
    net = Net(opset, seed)
    x = net.image(channels, batch)
    _pad(net, x, [0, pads[0], spatial[0], 0, 0, pads[1], 0, spatial[1]])
    net.consume("c", 4, 1, length)
    trial = check_random_plan(net.model(), seed)
    if min(pads) >= 0:
        assert all(ties(trial.model, ("p.w", 0), ("c", 1))[1])


@given(
    pads=st.tuples(*[st.integers(0, 3)] * 2),
    channels=st.integers(1, 6),
    batch=batches,
    by_axes=st.booleans(),
    seed=seeds,
)
def test_random_pads_beside_a_computed_one_stay_exact(
    pads: tuple[int, int], channels: int, batch: Dim, by_axes: bool, seed: int
) -> None:
    """Rows are padded by a length that another input has; the channels by constants."""
    net = Net(18 if by_axes else 13, seed)
    x = net.image(channels, batch)
    rows = net.op("Gather", net.op("Shape", net.input("T", name="o")), net.ints(0))
    first, last = ([], []) if by_axes else ([0], [0])
    parts = [net.ints(*first, pads[0]), rows, net.ints(*last, *first, pads[1], 0, *last)]
    inputs = [net.op("Concat", *parts, axis=0), net.constant(np.float32(0.5))]
    net.op("Pad", x, *inputs, *([net.ints(-3, 2)] if by_axes else []), name="c")
    net.consume("c", 4, 1, channels + sum(pads))
    model = net.model()
    Normalize().run(model, Context())
    trial = check_random_plan(model, seed)
    assert all(ties(trial.model, ("c", 1))[0])


@given(
    mode=st.sampled_from(["constant", "edge", "reflect"]),
    pads=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    axis=st.sampled_from([1, 2, 3, -1, -3]),
    channels=st.integers(3, 6),
    batch=batches,
    opset=st.sampled_from([18, 19, 21]),
    seed=seeds,
)
def test_random_pads_by_axes_stay_exact(
    mode: str,
    pads: tuple[int, int],
    axis: int,
    channels: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    net = Net(opset, seed)
    inputs = [net.ints(*pads), net.constant(np.float32(0.5)), net.ints(axis)]
    net.op("Pad", net.image(channels, batch), *inputs, name="c", mode=mode)
    net.consume("c", 4, 1, channels + (sum(pads) if axis % 4 == 1 else 0))
    trial = check_random_plan(net.model(), seed)
    if mode == "constant" or axis % 4 != 1:
        assert all(ties(trial.model, ("p.w", 0))[0])

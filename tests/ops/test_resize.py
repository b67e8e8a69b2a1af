"""Resize and Upsample: batch and channels pass, resampled axes stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

from irprune.queries import constant_of


def _resize(net: Net, x: str, form: str, channels: int, batch: int, mode: str) -> str:
    """Twice the height and width of a 4x4 image."""
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    if net.opset == 10:
        return net.op("Resize", x, scales, name="c", mode=mode)
    roi = net.constant(np.zeros(0, np.float32))
    if form == "scales":
        return net.op("Resize", x, roi, scales, name="c", mode=mode)
    empty = net.constant(np.zeros(0, np.float32))
    if form == "sizes":
        sizes = net.ints(batch, channels, 8, 8)
        return net.op("Resize", x, roi, empty, sizes, name="c", mode=mode)
    sizes = net.ints(8, 8, channels)
    return net.op("Resize", x, "", "", sizes, name="c", mode=mode, axes=[2, -1, 1])


def test_channels_pass_and_resampled_axes_stay() -> None:
    net = Net()
    m = net.op("MatMul", net.image(3), net.weight(4, 4, name="m"), name="l")
    _resize(net, m, "scales", 3, 1, "nearest")
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2, 3]] * 2
    assert why(model, "m", 1).startswith("is resampled")


@pytest.mark.parametrize("kind", ["Resize", "Upsample"])
def test_a_channel_scale_that_rounds_to_the_same_length_still_resamples(kind: str) -> None:
    net = Net(13 if kind == "Resize" else 9)
    scales = net.constant(np.array([1, 1.2, 2, 2], np.float32))
    inputs = ["", scales] if kind == "Resize" else [scales]
    net.op(kind, net.image(3), *inputs, name="c")
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("is resampled")


def test_a_crop_resamples_every_axis() -> None:
    net = Net()
    roi = net.constant(np.array([0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8], np.float32))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    mode = "tf_crop_and_resize"
    net.op("Resize", net.image(3), roi, scales, name="c", coordinate_transformation_mode=mode)
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("is resampled")


@given(
    form=st.sampled_from(["scales", "sizes", "axes"]),
    mode=st.sampled_from(["nearest", "linear"]),
    channels=st.integers(1, 6),
    batch=st.integers(1, 2),
    opset=st.sampled_from([10, 11, 13, 18, 19]),
    seed=seeds,
)
def test_random_resizes_stay_exact(
    form: str, mode: str, channels: int, batch: int, opset: int, seed: int
) -> None:
    form = "sizes" if form == "axes" and opset < 18 else form
    net = Net(opset, seed)
    _resize(net, net.image(channels, batch), form, channels, batch, mode)
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])
    if form != "scales" and opset > 10:
        node = next(n for n in trial.small.ir.graph if n.op_type == "Resize")
        sizes = constant_of(node.inputs[3])
        assert sizes is not None
        assert channels - trial.removed("c", 1) in sizes


@given(
    form=st.sampled_from(["attribute", "input"]),
    mode=st.sampled_from(["nearest", "linear"]),
    channels=st.integers(1, 6),
    batch=batches,
    seed=seeds,
)
def test_random_upsamples_stay_exact(
    form: str, mode: str, channels: int, batch: Dim, seed: int
) -> None:
    scales = [1.0, 1.0, 2.0, 2.0]
    net = Net(8 if form == "attribute" else 9, seed)
    x = net.image(channels, batch)
    if form == "attribute":
        net.op("Upsample", x, name="c", scales=scales, mode=mode)
    else:
        net.op("Upsample", x, net.constant(np.array(scales, np.float32)), name="c", mode=mode)
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


@given(channels=st.integers(1, 6), batch=batches, seed=seeds)
def test_resizes_to_the_size_of_another_map_stay_exact(
    channels: int, batch: Dim, seed: int
) -> None:
    """The feature pyramid pattern: some sizes are read at run time, that of the channels not."""
    net = Net(13, seed)
    x = net.image(channels, batch)
    other = net.op("Shape", net.input(batch, 1, "H", "W", name="other"))
    sizes = [net.op("Gather", net.op("Shape", x), net.ints(0)), net.ints(channels)]
    sizes += [net.op("Gather", other, net.ints(k)) for k in (2, 3)]
    size = net.op("Concat", *sizes, axis=0)
    net.op("Resize", x, "", "", size, name="c", mode="nearest")
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])

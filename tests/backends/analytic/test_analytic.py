"""Analytic devices against padding worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from irprune.backends.analytic.device import AnalyticDevice, parse
from irprune.backends.catalogue import find
from irprune.backends.ort.device import CpuDevice
from irprune.channels import Channels, analyse
from irprune.errors import IrpruneError
from tests.strategies import Net


def _channels(batch: int = 1) -> Channels:
    net = Net()
    x = net.conv(net.input(batch, 3, 4, 4), 3, 200, name="a")
    net.conv(x, 200, 10, name="y")
    return analyse(net.model().ir.graph)


def _at(device: AnalyticDevice, what: str, width: int, batch: int = 1) -> float:
    channels = _channels(batch)
    whole = channels.lengths(np.ones(channels.count, np.bool_))
    whole[whole == 200] = width
    return float(device.padded(channels, {}, what).total(whole[None])[0])  # type: ignore[arg-type]


def test_vectors_pad_channels_to_their_width() -> None:
    device = parse("cache-line:16")
    assert device is not None
    assert _at(device, "macs", 200) == 16 * (16 * 208 + 208 * 16)
    assert _at(device, "activations", 200) == 4 * 16 * (208 + 16)


def test_a_systolic_array_pads_inner_and_columns() -> None:
    device = parse("tpu-v2")
    assert device is not None
    assert _at(device, "macs", 200) == 16 * (128 * 256 + 256 * 128)
    turned = 16 * (128 * 128 * 200 + 256 * 128 * 16)
    assert _at(device, "macs", 200, batch=128) == turned


def test_a_layout_puts_batch_or_channels_innermost() -> None:
    """Of (batch, channels) one is padded to 8 and the other to 128."""
    device = parse("tpu-v2")
    assert device is not None
    assert _at(device, "activations", 200, 1) == 4 * 16 * (8 * 256 + 8 * 128)
    assert _at(device, "activations", 200, 128) == 4 * 16 * (128 * 200 + 128 * 16)


@pytest.mark.parametrize("name", ["tpu-v2", "tensor-core", "tensor-core:16", "cache-line:16"])
def test_useful_widths_end_where_the_cost_jumps(name: str) -> None:
    device = find(name)
    assert isinstance(device, AnalyticDevice)
    channels = _channels()
    cost = device.padded(channels, {}, "macs")
    axis = int(np.flatnonzero(channels.lengths(np.ones(channels.count, np.bool_)) == 200)[0])
    widths = cost.useful(axis).tolist()
    assert widths[-1] == 200
    assert all(width % device.align() == 0 for width in widths[:-1])
    assert len(widths) > 1


def test_time_is_the_slower_of_arithmetic_and_traffic() -> None:
    device = parse("tpu-v2")
    assert device is not None and device.macs_per_s is not None
    channels = _channels()
    whole = channels.lengths(np.ones(channels.count, np.bool_))[None]
    cost = device.padded(channels, {}, "time")
    assert cost.unit == "s"
    macs = device.padded(channels, {}, "macs")
    moved = device.padded(channels, {}, "bytes")
    for k, kernel in enumerate(cost.kernels):
        at = whole[:, kernel.axes]
        slower = max(macs.terms(k, at)[0], moved.terms(k, at)[0] * device.macs_per_byte)
        assert cost.terms(k, at)[0] == pytest.approx(slower / device.macs_per_s)


def test_devices_are_found_by_name() -> None:
    assert isinstance(find("auto"), CpuDevice)
    two = find("cpu:2")
    assert isinstance(two, CpuDevice) and two.threads == 2 and two.name == "cpu:2"
    other = find("CUDAExecutionProvider")
    assert isinstance(other, CpuDevice) and other.provider == "CUDAExecutionProvider"
    assert find("tensor-core:64").align() == 64


@pytest.mark.parametrize("name", ["abacus", "cpu:x", "cpu:0", "tpu-v2:3", "cache-line:x", ""])
def test_other_names_are_errors(name: str) -> None:
    with pytest.raises(IrpruneError, match="device"):
        find(name)

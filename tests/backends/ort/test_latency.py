"""The measured device on a small network: profiles, their reuse, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irprune.analyses import ChannelClasses, Groups
from irprune.backends.ort import latency
from irprune.backends.ort.device import CpuDevice
from irprune.cache import VARIABLE
from irprune.passbase import Context
from irprune.passes.choice.candidates import Candidates
from tests.strategies import Net


@pytest.fixture(autouse=True)
def _few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "PLANS", 6)
    monkeypatch.setattr(latency, "LEAST_PLANS", 3)
    monkeypatch.setattr(latency, "_ENOUGH", 5)


def _base(width: int = 48) -> Candidates:
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 8, 8), 3, width, 3, 3, name="a", pads=[1] * 4))
    y = net.op("Relu", net.conv(x, width, 64, 3, 3, name="b", pads=[1] * 4))
    net.conv(net.op("Add", net.conv(y, 64, width, name="c"), x), width, 5, name="y")
    model, context = net.model(), Context()
    channels = context.get(ChannelClasses(), model)
    return Candidates.of(model, channels, context.get(Groups(), model), context)


def _whole(base: Candidates) -> np.ndarray:
    return base.channels.lengths(np.ones(base.channels.count, np.bool_))


def test_a_device_is_profiled_once_and_then_remembered() -> None:
    said: list[str] = []
    base, device = _base(), CpuDevice()
    first = device.costs(base, said.append)
    assert first.runs == 7 and "profiling 7 plans" in said[0]
    again = device.costs(_base(), said.append)
    assert len(said) == 1 and again.runs == 7
    whole = _whole(base)[None]
    assert again.seconds(whole) == pytest.approx(first.seconds(whole))
    assert 0 < first.seconds(whole)[0] < 0.1
    assert first.unit == "s"


def test_every_kernel_gets_the_time_of_its_nodes() -> None:
    base = _base()
    cost = CpuDevice().costs(base, lambda line: None)
    whole = _whole(base)[None]
    terms = [cost.terms(k, whole[:, kernel.axes])[0] for k, kernel in enumerate(cost.kernels)]
    assert len(terms) == 4 and terms[1] == max(terms)
    assert cost.constant + sum(terms) == pytest.approx(cost.seconds(whole)[0])


def test_useful_lengths_ascend_to_the_full_one() -> None:
    base = _base()
    cost = CpuDevice().costs(base, lambda line: None)
    for axis, length in enumerate(_whole(base).tolist()):
        widths = cost.useful(axis)
        assert widths[-1] == length and (np.diff(widths) > 0).all() and widths[0] >= 1


def test_a_second_model_needs_fewer_profiles() -> None:
    said: list[str] = []
    CpuDevice().costs(_base(), said.append)
    CpuDevice().costs(_base(width=40), said.append)
    assert "profiling 7 plans" in said[0] and "profiling 4 plans" in said[1]


def test_threads_are_measured_apart() -> None:
    said: list[str] = []
    CpuDevice.parse("cpu").costs(_base(), said.append)
    CpuDevice.parse("cpu:2").costs(_base(), said.append)
    assert len(said) == 2


def test_alignment_is_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    device = CpuDevice(avx512=True)
    assert device.align() == 16
    device._cache().save(
        {
            "laws": {
                "Conv 3x3": {
                    "law": {"step": 32, "condition": ["in", 4]},
                    "error": 0.1, "straight": 0.4, "seconds": 1.0,
                },
                "Flatten": {
                    "law": {"step": 128, "condition": None},
                    "error": 0.1, "straight": 0.4, "seconds": 0.001,
                },
            }
        },
        print,
    )  # fmt: skip
    assert device.align() == 32


@pytest.mark.parametrize("studies", [7, {"x": 7}, {"x": {"kernels": [], "axes": [], "runs": []}}])
def test_a_damaged_cache_is_measured_again(studies: object) -> None:
    device, said = CpuDevice(), list[str]()
    device._cache().save({"studies": studies}, print)
    assert device.costs(_base(), said.append).runs == 7
    assert any("ignored" in line or "unknown" in line for line in said)
    assert isinstance(json.loads(device._cache().path.read_text())["content"]["studies"], dict)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("conv1", 0),
        ("relu_out_nchwc", 1),
        ("block/MatMul/MatMulAddFusion", 2),
        ("conv10", None),
        ("ReorderOutput_token_3", None),
    ],
)
def test_names_that_onnxruntime_made_lead_back(name: str, owner: int | None) -> None:
    owners = {"conv1": 0, "relu_out": 1, "block/MatMul": 2}
    assert latency._owner(name, owners) == owner


def test_added_nodes_count_for_the_next_kernel() -> None:
    nodes = [["Reorder", 1.0], ["a", 2.0], ["Reorder", 4.0], ["b", 8.0], ["Reorder", 16.0]]
    assert latency._attributed(nodes, {"a": 0, "b": 1}, 2) == [3.0, 28.0]


def test_a_fused_node_counts_for_its_own_kernel() -> None:
    net = Net()
    hidden = net.op("Gemm", net.input(1, 256), net.weight(256, 2048))
    net.op("Gemm", net.op("Relu", hidden), net.weight(2048, 4), name="y")
    model, context = net.model(), Context()
    channels = context.get(ChannelClasses(), model)
    base = Candidates.of(model, channels, context.get(Groups(), model), context)
    cost = CpuDevice().costs(base, lambda line: None)
    whole = _whole(base)[None]
    first, last = (cost.terms(k, whole[:, kernel.axes])[0] for k, kernel in enumerate(cost.kernels))
    assert first > 2 * last

"""What `irprune device` tells: the laws of the kernels, and the cost along the heaviest axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from irprune.backends.ort.latency import Latency
from irprune.channels import Channels
from irprune.protocols import DeviceCost, DeviceModel

_SHOWN = 3


def describe(device: DeviceModel, cost: DeviceCost, channels: Channels) -> dict[str, Any]:
    """Return the facts, fit for JSON."""
    return {
        "device": device.name,
        "unit": cost.unit,
        "align": device.align(),
        "kinds": _kinds(cost) if isinstance(cost, Latency) else [],
        "stairs": _stairs(cost, channels),
    }


def _kinds(cost: Latency) -> list[dict[str, Any]]:
    total = sum(finding.seconds for finding in cost.findings.values())
    found = sorted(cost.findings.items(), key=lambda item: -item[1].seconds)
    return [
        {
            "kind": kind,
            "share": finding.seconds / total,
            "step": finding.law.step,
            "condition": None
            if finding.law.condition is None
            else {"axes": finding.law.condition[0], "multiple": finding.law.condition[1]},
            "error": finding.error,
            "straight_error": finding.straight,
        }
        for kind, finding in found
    ]


def _stairs(cost: DeviceCost, channels: Channels) -> list[dict[str, Any]]:
    """Return the cost of all that touches an axis at each of its lengths, all others whole."""
    whole = channels.lengths(np.ones(channels.count, np.bool_))
    names: dict[int, tuple[str, int]] = {}
    for (value, axis), number in channels.unique_axes[2].items():
        names.setdefault(number, (value.name or "", axis))
    weight = np.zeros(len(whole))
    for k, kernel in enumerate(cost.kernels):
        weight[list(kernel.axes)] += cost.terms(k, whole[None, kernel.axes])[0]
    stairs = []
    for number in np.argsort(-weight, kind="stable")[:_SHOWN].tolist():
        lengths = np.arange(1, whole[number] + 1, dtype=np.int64)
        total = np.zeros(len(lengths))
        for k, kernel in enumerate(cost.kernels):
            if number in kernel.axes:
                at = np.tile(whole[list(kernel.axes)], (len(lengths), 1))
                at[:, kernel.axes.index(number)] = lengths
                total += cost.terms(k, at)
        tensor, axis = names[number]
        stairs.append(
            {
                "tensor": tensor,
                "axis": axis,
                "length": int(whole[number]),
                "cost": total.tolist(),
                "useful": cost.useful(number).tolist(),
            }
        )
    return stairs


def sample_network() -> Any:
    """A small network with the usual convolutions, as a protobuf."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(x: str, name: str, inner: int, outer: int, window: int, group: int = 1) -> str:
        array = random.normal(0, inner**-0.5, (outer, inner // group, window, window))
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"{name}.w"))
        pads = [window // 2] * 4
        made = helper.make_node(
            "Conv", [x, f"{name}.w"], [f"{name}.c"], name, pads=pads, group=group
        )
        nodes.extend([made, helper.make_node("Relu", [f"{name}.c"], [f"{name}.y"], f"{name}.relu")])
        return f"{name}.y"

    x = conv("images", "first", 3, 64, 3)
    for k in range(3):
        x = conv(x, f"wide{k}", 64 + 32 * k, 64 + 32 * k, 3)
        x = conv(x, f"apart{k}", 64 + 32 * k, 64 + 32 * k, 3, group=64 + 32 * k)
        x = conv(x, f"point{k}", 64 + 32 * k, 96 + 32 * k, 1)
    conv(x, "last", 160, 8, 1)
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 28, 28]),
        helper.make_tensor_value_info("last.y", TensorProto.FLOAT, [1, 8, 28, 28]),
    ]
    graph = helper.make_graph(nodes, "sample", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

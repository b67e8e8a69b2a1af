"""What the rounds are told by: parameters by two counts, stability to pruning, the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from irprune.channels import Channels
from irprune.model import Model
from irprune.passes.rounds import CONVOLUTIONS, Kind
from irprune.plan import Plan, count, take

_RUNNING = (3, 4)
"""Inputs of BatchNormalization that are statistics, not parameters."""


def own_parameters(channels: Channels, plan: Plan, kind: Kind | None = None) -> int:
    """Count parameters as the paper does: a removed filter takes its own weights alone with it.

    "For pruned models, we consider only the unmasked weights", and a mask covers one filter: the
    columns by which the next layer reads it still count. They are gone from the graph; the
    *physical* count of `irprune.cost` leaves them out.

    Args:
        channels: of the original graph.
        plan: from the original graph to the pruned one.
        kind: count the parameters of these layers alone.
    """
    created = {(site.value, site.axis) for site in channels.producers}
    read = {(site.value, site.axis) for site in channels.consumers} - created
    counted = _parameters(channels.graph)
    if kind is not None:
        held = _held(channels, kind)
        counted = [value for value in counted if value in held]
    total = 0
    for value in counted:
        assert value.shape is not None
        masks = plan.axes.get(value.name or "", {})
        total += prod(
            count(masks[axis]) if axis in masks and (value, axis) not in read else size
            for axis, size in enumerate(value.shape.numpy())
        )
    return total


def _held(channels: Channels, kind: Kind) -> set[ir.Value | None]:
    """Return what the layers of a kind read; of a weight that reaches one transposed, the original.

    As in `kind_of`, whatever creates or sums channels by a weight and is no convolution is dense.
    """
    sites = [*channels.producers, *channels.consumers]
    # Depthwise convolutions neither create nor sum channels.
    layers = {site.node for site in sites} | {n for n in channels.graph if _is_conv(n)}
    wanted = {node for node in layers if _is_conv(node) == (kind == "conv")}
    direct = {value for node in wanted for value in node.inputs}
    return direct | {site.value for site in sites if site.node in wanted}


def _is_conv(node: ir.Node) -> bool:
    return node.op_type in CONVOLUTIONS


def _parameters(graph: ir.Graph) -> list[ir.Value]:
    """Return what training changes: floating-point initializers but for running statistics."""
    return [
        value
        for value in graph.initializers.values()
        if value.dtype is not None
        and value.dtype.is_floating_point()
        and value.shape is not None
        and not any(n.op_type == "BatchNormalization" and i in _RUNNING for n, i in value.uses())
    ]


def threshold_kind(channels: Channels) -> Kind:
    """Return whose parameters drive the threshold: convolutions, or dense layers without any."""
    return "conv" if own_parameters(channels, Plan.empty(), "conv") else "dense"


def stability(original: Model, pruned: Model, plan: Plan) -> float:
    """Return the L2 distance of the pruned network's weights from the original's, both trained.

    Frankle et al. 2019, stability to pruning: over the weights that are not masked.
    """
    total = 0.0
    held = pruned.ir.graph.initializers
    for value in _parameters(original.ir.graph):
        name = value.name or ""
        if value.const_value is None or name not in held or held[name].const_value is None:
            continue
        before = take(value.const_value.numpy(), plan.axes.get(name, {})).astype(np.float64)
        after = held[name].const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
        total += float(((before - after) ** 2).sum())
    return float(np.sqrt(total))


def widths(channels: Channels, plan: Plan) -> dict[str, int]:
    """Return how many channels each layer creates under a plan, by its weight's name."""
    found: dict[str, int] = {}
    for site in channels.producers:
        masks = plan.axes.get(site.value.name or "", {})
        size = site.classes.shape[-1]
        name = site.value.name or ""
        if len(site.value.shape or ()) > 1:
            found[name] = count(masks[site.axis]) if site.axis in masks else size
    return found


def pareto(records: Sequence[Mapping[str, Any]], cost: str) -> list[int]:
    """Return the rounds that no other beats in both accuracy and a cost, in their order."""
    return [
        one["round"]
        for one in records
        if not any(
            (two["accuracy"] >= one["accuracy"] and two[cost] < one[cost])
            or (two["accuracy"] > one["accuracy"] and two[cost] <= one[cost])
            for two in records
        )
    ]

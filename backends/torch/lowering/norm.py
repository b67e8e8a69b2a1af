"""Normalisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx, nn
from torch.nn import functional

from irprune.backends.torch.lowering import layers
from irprune.backends.torch.lowering.conv import tensors
from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_BATCH_NORMS = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_STATE = ("weight", "bias", "running_mean", "running_var")
_PER_CHANNEL_SINCE = 21
"""GroupNormalization takes one scale per channel from this opset on, before one per group."""


def _batch_norm(low: Lowering, node: ir.Node) -> fx.Node:
    """BatchNorm in the mode of its layer: the running statistics adapt while it trains."""
    if low.integer(node, "training_mode", 0) or len(node.outputs) > 1:
        raise Unsupported(
            "it takes its batch's own statistics at inference too; export the network in eval mode"
        )
    given = dict(zip(_STATE, node.inputs[1:5], strict=True))
    held = {name: value for name, value in given.items() if value is not None}
    eps, momentum = low.real(node, "epsilon", 1e-5), low.real(node, "momentum", 0.9)
    rank = low.rank(low.input(node, 0))
    if low.rank(held["running_mean"]) != 1:
        raise Unsupported("its statistics are of places, not of channels (spatial = 0)")
    kinds = {value.dtype for value in node.inputs if value is not None} - {None}
    if len(kinds) > 1:
        raise Unsupported(f"its inputs are of {' and '.join(sorted(map(str, kinds)))}")
    (features,) = low.dims(held["running_mean"])
    whole = all(low.held(value) for value in held.values())
    if not whole or rank not in _BATCH_NORMS or not isinstance(features, int):
        parts = [low.tensor(held[name]) for name in _STATE]
        return low.layer(node, layers.FrozenBatchNorm(eps), {}, low.data(node), *parts)
    rate = round(1 - momentum, 7)
    if rate == 0:
        raise Unsupported(
            "its running statistics would never adapt (momentum 1, which exporters write for a "
            "cumulative average); give it a momentum below 1"
        )
    kind = _BATCH_NORMS[rank]
    layer = kind(features, eps, rate, device="meta")
    return low.layer(node, layer, held, low.data(node))


def _normalised(low: Lowering, node: ir.Node, weight: ir.Value) -> list[int]:
    """Return the lengths of the axes that a node normalises.

    Where inference does not know one (behind a Reshape of a dynamic batch), the weight says it: it
    broadcasts to the input, so a length above 1 is the input's own.
    """
    x = low.input(node, 0)
    axis = low.integer(node, "axis", -1) % low.rank(x)
    dims, scale = low.dims(x)[axis:], low.dims(weight)
    told = [None] * (len(dims) - len(scale)) + [dim if dim != 1 else None for dim in scale]
    lengths = [a if isinstance(a, int) else b for a, b in zip(dims, told, strict=True)]
    known = [dim for dim in lengths if isinstance(dim, int)]
    if len(known) < len(lengths):
        raise Unsupported(f"it normalises axes of unknown length {dims}")
    return known


def _layer_norm(low: Lowering, node: ir.Node) -> fx.Node:
    if any(value.uses() for value in node.outputs[1:]):
        raise Unsupported("its mean or deviation is read")
    weight, bias = low.input(node, 1), low.input(node, 2)
    assert weight is not None
    lengths, eps = _normalised(low, node, weight), low.real(node, "epsilon", 1e-5)
    fits = low.dims(weight) == lengths and (bias is None or low.dims(bias) == lengths)
    if fits and low.held(weight) and (bias is None or low.held(bias)):
        layer = nn.LayerNorm(lengths, eps, bias=bias is not None, device="meta")
        return low.layer(node, layer, tensors(weight, bias), low.data(node))
    made = low.call(functional.layer_norm, low.data(node), lengths, None, None, eps)
    made = low.call(torch.mul, made, low.tensor(weight))
    return made if bias is None else low.call(torch.add, made, low.tensor(bias))


def _rms_norm(low: Lowering, node: ir.Node) -> fx.Node:
    weight = low.input(node, 1)
    assert weight is not None
    lengths, eps = _normalised(low, node, weight), low.real(node, "epsilon", 1e-5)
    if low.held(weight) and low.dims(weight) == lengths:
        layer = nn.RMSNorm(lengths, eps, device="meta")
        return low.layer(node, layer, {"weight": weight}, low.data(node))
    made = low.call(functional.rms_norm, low.data(node), lengths, None, eps)
    return low.call(torch.mul, made, low.tensor(weight))


def _instance_norm(low: Lowering, node: ir.Node) -> fx.Node:
    weight, bias = low.data(node, 1), low.data(node, 2)
    eps = low.real(node, "epsilon", 1e-5)
    return low.call(instance_norm, low.data(node), weight, bias, eps)


def instance_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """InstanceNormalization; torch.nn's refuses planes of one element, which come to the bias."""
    fast = torch.backends.cudnn.enabled
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, fast)


def _group_norm(low: Lowering, node: ir.Node) -> fx.Node:
    weight, bias = low.input(node, 1), low.input(node, 2)
    assert weight is not None and bias is not None
    groups, eps = low.integer(node, "num_groups", 1), low.real(node, "epsilon", 1e-5)
    per_group = low.opset < _PER_CHANNEL_SINCE
    (length,) = low.dims(weight)
    if not per_group and low.held(weight) and low.held(bias) and isinstance(length, int):
        layer = layers.GroupNorm(groups, length, eps, device="meta")
        return low.layer(node, layer, tensors(weight, bias), low.data(node))
    return low.call(
        layers.group_norm, low.data(node), groups, low.tensor(weight), low.tensor(bias), eps,
        per_group,
    )  # fmt: skip


def _lrn(low: Lowering, node: ir.Node) -> fx.Node:
    size = low.integer(node, "size", 1)
    alpha, beta = low.real(node, "alpha", 1e-4), low.real(node, "beta", 0.75)
    bias = low.real(node, "bias", 1.0)
    if size % 2 == 0:
        raise Unsupported(f"its window is even: {size}")
    return low.layer(node, nn.LocalResponseNorm(size, alpha, beta, bias), {}, low.data(node))


def _lp_norm(low: Lowering, node: ir.Node) -> fx.Node:
    axis, order = low.integer(node, "axis", -1), low.integer(node, "p", 2)
    return low.call(lp_normalised, low.data(node), order, axis)


def lp_normalised(x: torch.Tensor, order: int, axis: int) -> torch.Tensor:
    """LpNormalization: by a norm along an axis; zeros stay."""
    norm: torch.Tensor = torch.linalg.vector_norm(x, order, axis, keepdim=True)
    return x / norm.where(norm != 0, 1.0)


def _mvn(low: Lowering, node: ir.Node) -> fx.Node:
    return low.call(mean_variance, low.data(node), low.ints(node, None, "axes") or [0, 2, 3])


def mean_variance(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    """MeanVarianceNormalization over some axes."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mvn,
}

"""Non-linearities of one input, as layers, so that their outputs can be watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional

from irprune.backends.torch.lowering import layers

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_SAFE = """
    Add BatchNormalization Concat Conv ConvTranspose Gemm Linear MatMul Sub
"""
_SAFE_TO_OVERWRITE = frozenset(_SAFE.split())
"""Ops that make a tensor of their own, whose gradient needs no look at it."""


def _inplace(low: Lowering, node: ir.Node) -> bool:
    """Return whether an activation may overwrite its input."""
    value = low.input(node, 0)
    maker = None if value is None else value.producer()
    known = maker is not None and maker.op_type in _SAFE_TO_OVERWRITE
    fused = low.data(node).target is functional.scaled_dot_product_attention  # it looks
    return low.inplace and known and not fused and low.only_reader(node, value)


def _overwriting(make: Callable[[bool], nn.Module]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        return low.layer(node, make(_inplace(low, node)), {}, low.data(node))

    return rule


def _plain(make: Callable[[], nn.Module]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        return low.layer(node, make(), {}, low.data(node))

    return rule


def _function(function: Callable[..., Any]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        return low.call(function, low.data(node))

    return rule


def _scaled(make: Callable[[float], nn.Module], default: float) -> Rule:
    """A layer with the parameter alpha."""

    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        return low.layer(node, make(low.real(node, "alpha", default)), {}, low.data(node))

    return rule


def _gelu(low: Lowering, node: ir.Node) -> fx.Node:
    layer = nn.GELU(low.text(node, "approximate", "none"))
    return low.layer(node, layer, {}, low.data(node))


def _swish(low: Lowering, node: ir.Node) -> fx.Node:
    alpha = low.real(node, "alpha", 1.0)
    if alpha == 1:
        return low.layer(node, nn.SiLU(), {}, low.data(node))
    return low.call(swish, low.data(node), alpha)


def swish(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Swish with a parameter of its own."""
    return x * (alpha * x).sigmoid()


def _selu(low: Lowering, node: ir.Node) -> fx.Node:
    alpha, gamma = low.real(node, "alpha", 1.67326319), low.real(node, "gamma", 1.05070102)
    return low.call(selu, low.data(node), alpha, gamma)


def selu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Selu with parameters of its own."""
    return gamma * functional.elu(x, alpha)


def _hard_sigmoid(low: Lowering, node: ir.Node) -> fx.Node:
    alpha, beta = low.real(node, "alpha", 0.2), low.real(node, "beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return low.layer(node, nn.Hardsigmoid(), {}, low.data(node))
    return low.call(hard_sigmoid, low.data(node), alpha, beta)


def hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """HardSigmoid with parameters of its own."""
    return (x * alpha + beta).clamp(0, 1)


def _clip(low: Lowering, node: ir.Node) -> fx.Node:
    if low.opset < 11:
        bounds: list[Any] = [
            low.real(node, name, 0) if name in node.attributes else None for name in ("min", "max")
        ]
    else:
        bounds = [low.number(node, 1), low.number(node, 2)]
    least, most = bounds
    if least == 0 and most == 6:
        return low.layer(node, nn.ReLU6(_inplace(low, node)), {}, low.data(node))
    if all(isinstance(bound, int | float) for bound in bounds) and least < most:
        layer = nn.Hardtanh(least, most, _inplace(low, node))
        return low.layer(node, layer, {}, low.data(node))
    if least is None and most is None:
        return low.data(node)
    if any(isinstance(bound, fx.Node) for bound in bounds):
        return low.call(clip, low.data(node), *bounds)
    return low.call(torch.clamp, low.data(node), *bounds)


def clip(x: torch.Tensor, least: Any, most: Any) -> torch.Tensor:
    """Clip by computed bounds."""
    if least is not None:
        x = torch.maximum(x, torch.as_tensor(least, dtype=x.dtype, device=x.device))
    if most is not None:
        x = torch.minimum(x, torch.as_tensor(most, dtype=x.dtype, device=x.device))
    return x


def _prelu(low: Lowering, node: ir.Node) -> fx.Node:
    slope = low.input(node, 1)
    assert slope is not None
    dims, rank = low.dims(slope), low.rank(low.input(node, 0))
    lined = len(dims) == rank - 1 and all(dim == 1 for dim in dims[1:])
    if low.held(slope) and (dims == [1] or (lined and len(dims) == 1)):
        layer = nn.PReLU(int(dims[0] or 1), device="meta")
        return low.layer(node, layer, {"weight": slope}, low.data(node))
    if low.held(slope) and lined:  # (C, 1, 1): torch wants (C,)
        return low.layer(node, layers.PReLU(), {"weight": slope}, low.data(node))
    return low.call(prelu, low.data(node), low.tensor(slope))


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """PRelu with a slope that broadcasts."""
    return torch.where(x < 0, x * slope, x)


def _softmax(layer: Callable[[int], nn.Module]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        x, rank = low.data(node), low.rank(low.input(node, 0))
        if low.opset >= 13:
            return low.layer(node, layer(low.integer(node, "axis", -1)), {}, x)
        axis = low.integer(node, "axis", 1) % rank
        dims = low.dims(low.input(node, 0))[axis + 1 :]
        if all(dim == 1 for dim in dims):
            return low.layer(node, layer(axis), {}, x)
        flat = low.call(torch.flatten, x, axis)
        return low.method("view_as", low.layer(node, layer(axis), {}, flat), x)

    return rule


def _trelu(low: Lowering, node: ir.Node) -> fx.Node:
    return low.layer(node, nn.Threshold(low.real(node, "alpha", 1.0), 0.0), {}, low.data(node))


def _shrink(low: Lowering, node: ir.Node) -> fx.Node:
    bias, bound = low.real(node, "bias", 0.0), low.real(node, "lambd", 0.5)
    return low.call(shrink, low.data(node), bias, bound)


def shrink(x: torch.Tensor, bias: float, bound: float) -> torch.Tensor:
    """Shrink: toward zero by a bias, to zero within a bound."""
    return torch.where(x > bound, x - bias, torch.where(x < -bound, x + bias, 0.0)).to(x.dtype)


RULES: dict[str, Rule] = {
    "Relu": _overwriting(nn.ReLU),
    "LeakyRelu": _scaled(nn.LeakyReLU, 0.01),
    "Elu": _scaled(nn.ELU, 1.0),
    "Celu": _scaled(nn.CELU, 1.0),
    "Selu": _selu,
    "Sigmoid": _plain(nn.Sigmoid),
    "Tanh": _plain(nn.Tanh),
    "Softplus": _plain(nn.Softplus),
    "Softsign": _plain(nn.Softsign),
    "HardSwish": _overwriting(nn.Hardswish),
    "HardSigmoid": _hard_sigmoid,
    "Mish": _plain(nn.Mish),
    "Gelu": _gelu,
    "Swish": _swish,
    "Clip": _clip,
    "PRelu": _prelu,
    "ThresholdedRelu": _trelu,
    "Shrink": _shrink,
    "Softmax": _softmax(nn.Softmax),
    "LogSoftmax": _softmax(nn.LogSoftmax),
    "Hardmax": _softmax(layers.Hardmax),
    "Abs": _function(torch.abs),
    "Acos": _function(torch.acos),
    "Acosh": _function(torch.acosh),
    "Asin": _function(torch.asin),
    "Asinh": _function(torch.asinh),
    "Atan": _function(torch.atan),
    "Atanh": _function(torch.atanh),
    "BitwiseNot": _function(torch.bitwise_not),
    "Ceil": _function(torch.ceil),
    "Cos": _function(torch.cos),
    "Cosh": _function(torch.cosh),
    "Det": _function(torch.linalg.det),
    "Erf": _function(torch.erf),
    "Exp": _function(torch.exp),
    "Floor": _function(torch.floor),
    "IsNaN": _function(torch.isnan),
    "Log": _function(torch.log),
    "Neg": _function(torch.neg),
    "Not": _function(torch.logical_not),
    "Reciprocal": _function(torch.reciprocal),
    "Round": _function(torch.round),
    "Sign": _function(torch.sign),
    "Sin": _function(torch.sin),
    "Sinh": _function(torch.sinh),
    "Sqrt": _function(torch.sqrt),
    "Tan": _function(torch.tan),
}

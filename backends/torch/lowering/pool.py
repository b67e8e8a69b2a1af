"""Pooling over the spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn import functional

from irprune.backends.torch.lowering import layers
from irprune.backends.torch.lowering.conv import torch_pads, window
from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MEAN: tuple[Callable[..., nn.Module], ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_WHOLE_MEAN: tuple[Callable[..., nn.Module], ...] = (
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
_WHOLE_MAX: tuple[Callable[..., nn.Module], ...] = (
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)


def _max_pool(low: Lowering, node: ir.Node) -> fx.Node | tuple[fx.Node, ...]:
    kernel = low.ints(node, None, "kernel_shape") or []
    spatial = len(kernel)
    strides = low.ints(node, None, "strides") or [1] * spatial
    dilations = low.ints(node, None, "dilations") or [1] * spatial
    ceil = bool(low.integer(node, "ceil_mode", 0))
    listed = low.is_read(node, 1)
    if not 1 <= spatial <= 3:
        raise Unsupported(f"its kernel has {spatial} axes")
    if low.text(node, "auto_pad", "NOTSET").startswith("SAME") and any(n != 1 for n in dilations):
        raise Unsupported("its kernel is dilated, which runtimes leave out of automatic pads")
    held = low.input(node, 0)
    whole = held is not None and held.dtype is not None and not held.dtype.is_floating_point()
    least = torch.iinfo(low.dtype(held)).min if whole else -torch.inf
    x, pads = window(low, node, low.data(node), kernel, least)
    if any(2 * pad > size for pad, size in zip(pads, kernel, strict=True)):
        x = low.call(functional.pad, x, torch_pads(pads, pads), value=least)
        pads = [0] * spatial
    layer = _MAX[spatial - 1](
        tuple(kernel), tuple(strides), tuple(pads), tuple(dilations), listed, ceil
    )
    made = _within(low, node, low.layer(node, layer, {}, x), x)
    if not listed:
        return made
    if x is not low.data(node) or low.integer(node, "storage_order", 0):
        raise Unsupported("its Indices are read, and its pads differ")
    values = low.call(_first, made)
    return values, low.call(numbered, low.call(_second, made), low.data(node))


def _within(low: Lowering, node: ir.Node, made: fx.Node, x: fx.Node) -> fx.Node:
    """Return a result without windows that begin behind the data, where `x` is that and pads."""
    pads = low.ints(node, None, "pads")
    if x is low.data(node) or not low.integer(node, "ceil_mode", 0) or not pads:
        return made
    before = pads[: len(pads) // 2]
    strides = low.ints(node, None, "strides") or [1] * len(before)
    return low.call(layers.within, made, low.data(node), strides, before)


def _first(pair: Any) -> Any:
    return pair[0]


def _second(pair: Any) -> Any:
    return pair[1]


def numbered(places: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Turn places in each plane into places in the whole tensor ``(N, C, ...)``."""
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    start = planes.view(x.shape[0], x.shape[1], *[1] * (x.dim() - 2)) * x[0, 0].numel()
    return places + start


def _mean_pool(low: Lowering, node: ir.Node) -> fx.Node:
    kernel = low.ints(node, None, "kernel_shape") or []
    spatial = len(kernel)
    strides = low.ints(node, None, "strides") or [1] * spatial
    counted = bool(low.integer(node, "count_include_pad", 0))
    ceil = bool(low.integer(node, "ceil_mode", 0))
    dilations = low.ints(node, None, "dilations") or [1] * spatial
    if not 1 <= spatial <= 3 or any(n != 1 for n in dilations):
        raise Unsupported(f"its kernel is {kernel}, its dilations are {dilations}")
    data = low.data(node)
    x, pads = window(low, node, data, kernel, 0.0)
    automatic = low.text(node, "auto_pad", "NOTSET")
    if x is not data and automatic.startswith("SAME") and not counted:
        upper = automatic == "SAME_UPPER"
        return low.call(layers.mean_pool_same, data, x, kernel, strides, upper, ceil)
    uneven = x is not data
    wide = any(2 * pad > size for pad, size in zip(pads, kernel, strict=True))
    if (uneven or wide) and not counted:
        whole = low.ints(node, None, "pads") or []
        even = torch_pads(whole[:spatial], whole[spatial:])
        return low.call(layers.mean_pool_inside, data, kernel, strides, even, ceil)
    if wide:
        x = low.call(functional.pad, x, torch_pads(pads, pads))
        pads = [0] * spatial
    layer = _MEAN[spatial - 1](tuple(kernel), tuple(strides), tuple(pads), ceil, counted)
    return _within(low, node, low.layer(node, layer, {}, x), x)


def _whole(kinds: tuple[Callable[..., nn.Module], ...]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        spatial = low.rank(low.input(node, 0)) - 2
        if not 1 <= spatial <= 3:
            raise Unsupported(f"its input has {spatial} spatial axes")
        size = 1 if spatial == 1 else (1,) * spatial
        return low.layer(node, kinds[spatial - 1](size), {}, low.data(node))

    return rule


def _lp_pool(low: Lowering, node: ir.Node) -> fx.Node:
    kernel = low.ints(node, None, "kernel_shape") or []
    strides = low.ints(node, None, "strides") or [1] * len(kernel)
    ceil = bool(low.integer(node, "ceil_mode", 0))
    x, pads = window(low, node, low.data(node), kernel, 0.0)
    if not 1 <= len(kernel) <= 3 or any(n != 1 for n in low.ints(node, None, "dilations") or []):
        raise Unsupported(f"its kernel is {kernel}, or it is dilated")
    if any(pads):
        x = low.call(functional.pad, x, torch_pads(pads, pads))
    power = low.integer(node, "p", 2)
    return _within(low, node, low.call(layers.lp_pool, x, power, kernel, strides, ceil), x)


def _whole_lp(low: Lowering, node: ir.Node) -> fx.Node:
    axes = list(range(2, low.rank(low.input(node, 0))))
    power = low.integer(node, "p", 2)
    return low.call(torch.linalg.vector_norm, low.data(node), power, axes, True)


RULES: dict[str, Rule] = {
    "MaxPool": _max_pool,
    "AveragePool": _mean_pool,
    "GlobalAveragePool": _whole(_WHOLE_MEAN),
    "GlobalMaxPool": _whole(_WHOLE_MAX),
    "LpPool": _lp_pool,
    "GlobalLpPool": _whole_lp,
}

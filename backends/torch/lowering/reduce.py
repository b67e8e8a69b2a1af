"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        axes = low.ints(node, 1, "axes")
        if not axes:
            if low.integer(node, "noop_with_empty_axes", 0):  # of one element each
                return low.call(function, low.method("unsqueeze", low.data(node), -1), [-1], False)
            axes = list(range(low.rank(low.input(node, 0))))
        keep = bool(low.integer(node, "keepdims", 1))
        return low.call(function, low.data(node), axes, keep)

    return rule


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _l1(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(x, 1, axes, keep)
    return result


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    result: Tensor = torch.linalg.vector_norm(x, 2, axes, keep)
    return result


def _log_sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep).log()


def _arg(function: Callable[..., Tensor]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        if low.integer(node, "select_last_index", 0):
            raise Unsupported("it selects the last index of equal ones")
        keep = bool(low.integer(node, "keepdims", 1))
        return low.call(function, low.data(node), low.integer(node, "axis", 0), keep)

    return rule


def _cumsum(low: Lowering, node: ir.Node) -> fx.Node:
    axes = low.ints(node, 1)
    if axes is None or low.integer(node, "exclusive", 0):
        raise Unsupported("it is exclusive, or its axis is missing")
    x = low.data(node)
    if not low.integer(node, "reverse", 0):
        return low.call(torch.cumsum, x, axes[0])
    return low.call(
        torch.flip, low.call(torch.cumsum, low.call(torch.flip, x, axes), axes[0]), axes
    )


RULES: dict[str, Rule] = {
    "ReduceSum": _reduction(_sum),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSumSquare": _reduction(_sum_square),
    "ReduceL1": _reduction(_l1),
    "ReduceL2": _reduction(_l2),
    "ReduceLogSum": _reduction(_log_sum),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "CumSum": _cumsum,
}

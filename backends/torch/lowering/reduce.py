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


def _reduction(
    function: Callable[[Tensor, list[int], bool], Tensor], of_integers: bool = True
) -> Rule:
    """A reduction; one that torch has of floats alone is cut off to an integer, of integers."""

    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        x, keep = low.data(node), bool(low.integer(node, "keepdims", 1))
        kind = node.inputs[0].dtype if node.inputs[0] is not None else None
        detour = not of_integers and kind is not None and not kind.is_floating_point()
        x = low.method("to", x, torch.float64) if detour else x
        axes = low.ints(node, 1, "axes")
        if not axes and low.integer(node, "noop_with_empty_axes", 0):  # of one element each
            x, axes, keep = low.method("unsqueeze", x, -1), [-1], False
        elif not axes:
            axes = list(range(low.rank(low.input(node, 0))))
        made = low.call(function, x, axes, keep)
        return low.method("to", made, low.dtype(node.inputs[0])) if detour else made

    return rule


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _sum_square(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keep, dtype=x.dtype)


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
    return low.call(cumulated, low.data(node), axes[0], bool(low.integer(node, "reverse", 0)))


def cumulated(x: Tensor, axis: int, reverse: bool) -> Tensor:
    """CumSum along an axis, from its start or from its end."""
    if reverse:
        return x.flip(axis).cumsum(axis, dtype=x.dtype).flip(axis)
    return x.cumsum(axis, dtype=x.dtype)


RULES: dict[str, Rule] = {
    "ReduceSum": _reduction(_sum),
    "ReduceMean": _reduction(torch.mean, of_integers=False),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSumSquare": _reduction(_sum_square),
    "ReduceL1": _reduction(_l1, of_integers=False),
    "ReduceL2": _reduction(_l2, of_integers=False),
    "ReduceLogSum": _reduction(_log_sum, of_integers=False),
    "ReduceLogSumExp": _reduction(torch.logsumexp, of_integers=False),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "CumSum": _cumsum,
}

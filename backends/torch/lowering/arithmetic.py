"""Element-wise ops of several inputs, comparisons, and changes of type."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from irprune.backends.torch.lowering.lower import Unsupported
from irprune.backends.torch.lowering.parameters import DTYPES

if TYPE_CHECKING:
    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering


def operands(low: Lowering, node: ir.Node) -> list[Any]:
    """Return the two inputs of a formula; a constant number stays one.

    Before opset 7 a second input may start at an axis of the first: it is refused.
    """
    a, b = low.input(node, 0), low.input(node, 1)
    if a is None or b is None:
        raise Unsupported("an input is missing")
    if "axis" in node.attributes:
        raise Unsupported("it broadcasts from an axis, as ONNX did before opset 7")
    return [low.operand(a, b), low.operand(b, a)]


def _binary(function: Callable[..., Any]) -> Rule:
    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        return low.call(function, *operands(low, node))

    return rule


def _tensors(function: Callable[..., Any]) -> Rule:
    """A function that takes no Python numbers."""

    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        return low.call(function, low.data(node, 0), low.data(node, 1))

    return rule


def _div(low: Lowering, node: ir.Node) -> fx.Node:
    value = low.input(node, 0)
    if value is None or value.dtype is None:
        raise Unsupported("the type of its input is unknown")
    if value.dtype.is_floating_point():
        return low.call(operator.truediv, *operands(low, node))
    return low.call(divided, low.data(node, 0), low.data(node, 1))


def divided(a: Tensor, b: Tensor) -> Tensor:
    """Divide integers toward zero, as ONNX does."""
    return torch.div(a, b, rounding_mode="trunc")


def _mod(low: Lowering, node: ir.Node) -> fx.Node:
    function = torch.fmod if low.integer(node, "fmod", 0) else torch.remainder
    return low.call(function, low.data(node, 0), low.data(node, 1))


def _pow(low: Lowering, node: ir.Node) -> fx.Node:
    kinds = [value.dtype for value in node.inputs if value is not None]
    if kinds[0] is not None and (kinds[0] != kinds[1] or not kinds[0].is_floating_point()):
        return low.call(power, low.data(node, 0), low.data(node, 1))
    base, exponent = operands(low, node)
    if isinstance(exponent, float) and exponent.is_integer():
        exponent = int(exponent)
    return low.call(torch.pow, base, exponent)


def power(base: Tensor, exponent: Tensor) -> Tensor:
    """Pow of integers, or of two types: the result has that of the base."""
    if not (base.is_floating_point() or exponent.is_floating_point() or (exponent < 0).any()):
        return torch.pow(base, exponent).to(base.dtype)
    return torch.pow(base.double(), exponent.double()).to(base.dtype)


def _many(function: Callable[..., Any]) -> Rule:
    """Fold any number of inputs."""

    def rule(low: Lowering, node: ir.Node) -> fx.Node:
        made = low.data(node, 0)
        for k in range(1, len(node.inputs)):
            made = low.call(function, made, low.data(node, k))
        return made

    return rule


def _mean(low: Lowering, node: ir.Node) -> fx.Node:
    return low.call(operator.truediv, _many(operator.add)(low, node), len(node.inputs))


def _where(low: Lowering, node: ir.Node) -> fx.Node:
    a, b = low.input(node, 1), low.input(node, 2)
    assert a is not None and b is not None
    rank = low.rank(node.outputs[0])
    condition = low.data(node, 0)
    whole = low.rank(low.input(node, 0)) == rank
    parts = []
    for value in (a, b):
        numbers = low.constant(value)
        alone = whole and numbers is not None and numbers.size == 1 and value is a
        keeps = alone and b not in low.constants
        parts.append(numbers.item() if keeps and numbers is not None else low.tensor(value))
    return low.call(torch.where, condition, *parts)


def _cast(low: Lowering, node: ir.Node) -> fx.Node:
    return cast(low, node, ir.DataType(node.attributes["to"].as_int()))


def cast(low: Lowering, node: ir.Node, kind: ir.DataType | None) -> fx.Node:
    """Change the type of the first input; a no-op is none."""
    value = low.input(node, 0)
    dtype = None if kind is None else DTYPES.get(kind)
    if dtype is None or value is None:
        raise Unsupported(f"torch has no type {kind}")
    if value.dtype == kind:
        return low.data(node)
    return low.method("to", low.data(node), dtype)


def _cast_like(low: Lowering, node: ir.Node) -> fx.Node:
    like = low.input(node, 1)
    return cast(low, node, None if like is None else like.dtype)


def _identity(low: Lowering, node: ir.Node) -> fx.Node:
    return low.data(node)


def _constant_of_shape(low: Lowering, node: ir.Node) -> fx.Node:
    held = node.attributes.get("value")
    fill: Any = 0.0 if held is None else held.as_tensor().numpy().ravel()[0].item()
    sizes = low.sizes(node, 0)
    like = next(low.made[value] for value in low.source.inputs)
    return low.call(filled, like, sizes, fill, low.dtype(node.outputs[0]))


def filled(like: Tensor, sizes: list[int], fill: Any, dtype: torch.dtype) -> Tensor:
    """Return a tensor of one number, on the device of another one."""
    return torch.full(sizes, fill, dtype=dtype, device=like.device)


def _range(low: Lowering, node: ir.Node) -> fx.Node:
    start, end, step = (low.number(node, k) for k in range(3))
    like = next(low.made[value] for value in low.source.inputs)
    return low.call(ranged, like, start, end, step, low.dtype(node.outputs[0]))


def ranged(like: Tensor, start: Any, end: Any, step: Any, dtype: torch.dtype) -> Tensor:
    """Return the numbers of a range, on the device of another tensor; none of one that is empty."""
    if (end - start) * step <= 0:
        end = start  # torch refuses a step that leads away
    return torch.arange(start, end, step, dtype=dtype, device=like.device)


def _bit_shift(low: Lowering, node: ir.Node) -> fx.Node:
    left = low.text(node, "direction", "LEFT") == "LEFT"
    function = torch.bitwise_left_shift if left else torch.bitwise_right_shift
    return low.call(function, low.data(node, 0), low.data(node, 1))


def _eye_like(low: Lowering, node: ir.Node) -> fx.Node:
    kind = low.dtype(node.outputs[0])
    return low.call(eye_like, low.data(node), low.integer(node, "k", 0), kind)


def eye_like(x: Tensor, offset: int, dtype: torch.dtype) -> Tensor:
    """Return ones on a diagonal, in the shape of a matrix."""
    ones = torch.ones(x.shape, dtype=dtype, device=x.device)
    return torch.triu(torch.tril(ones, offset), offset)


def finite_only(x: Tensor, positive: bool, negative: bool) -> Tensor:
    """IsInf, of the signs that are asked for."""
    return (positive & torch.isposinf(x)) | (negative & torch.isneginf(x))


def _is_inf(low: Lowering, node: ir.Node) -> fx.Node:
    signs = [bool(low.integer(node, f"detect_{sign}", 1)) for sign in ("positive", "negative")]
    return low.call(finite_only, low.data(node), *signs)


RULES: dict[str, Rule] = {
    "Add": _binary(operator.add),
    "Sub": _binary(operator.sub),
    "Mul": _binary(operator.mul),
    "Div": _div,
    "Mod": _mod,
    "Pow": _pow,
    "Sum": _many(operator.add),
    "Max": _many(torch.maximum),
    "Min": _many(torch.minimum),
    "Mean": _mean,
    "Equal": _binary(operator.eq),
    "Greater": _binary(operator.gt),
    "GreaterOrEqual": _binary(operator.ge),
    "Less": _binary(operator.lt),
    "LessOrEqual": _binary(operator.le),
    "And": _tensors(torch.logical_and),
    "Or": _tensors(torch.logical_or),
    "Xor": _tensors(torch.logical_xor),
    "BitwiseAnd": _tensors(torch.bitwise_and),
    "BitwiseOr": _tensors(torch.bitwise_or),
    "BitwiseXor": _tensors(torch.bitwise_xor),
    "BitShift": _bit_shift,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": _identity,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "EyeLike": _eye_like,
    "IsInf": _is_inf,
}

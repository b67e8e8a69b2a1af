"""Arithmetic on lengths: what a graph computes from shapes is computed with Python numbers."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, fx

Numbers = Any
"""Numpy array of objects: Python numbers, or nodes of the graph that yield one."""
MOST = 64
"""Elements of a tensor that is followed number by number."""


class Host(Protocol):
    """What these rules need of the lowering."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> fx.Node: ...

    def integer(self, node: ir.Node, name: str, default: int) -> int: ...

    def ints(self, node: ir.Node, index: int | None, name: str) -> list[int] | None: ...


HostRule = Callable[[Host, ir.Node, Sequence[Numbers]], Numbers]
"""Takes the inputs, None for an omitted one; returns None for what must be a tensor."""


def array(items: Any, shape: Sequence[int]) -> Numbers:
    """Return an array of objects of a shape."""
    flat = list(items)
    result = np.empty(len(flat), dtype=object)
    for k, item in enumerate(flat):
        result[k] = item
    return result.reshape(tuple(shape))


def symbolic(numbers: Numbers) -> bool:
    """Return whether an element is known at run time alone."""
    return any(isinstance(item, fx.Node) for item in numbers.ravel())


def stacked(like: Tensor, numbers: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """Return numbers as a tensor on the device of another one."""
    return torch.tensor(numbers, dtype=dtype, device=like.device)


def truncated(a: Any, b: Any) -> Any:
    """Divide as ONNX does: integers toward zero."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return a // b if (a >= 0) == (b > 0) else -(-a // b)


def single(number: float) -> float:
    """Round to float32, that is to 24 bits; by functions on which torch.compile takes no symbol."""
    if not math.isfinite(number):  # what a mask is made of
        return number
    fraction, exponent = math.frexp(number)
    return math.ldexp(round(fraction * 2**24), exponent - 24)


def _pointwise(function: Callable[..., Any]) -> HostRule:
    """Element by element; what the graph computes in float32 is rounded to that."""

    def rule(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
        rounded = node.outputs[0].dtype == ir.DataType.FLOAT

        def one(*items: Any) -> Any:
            run = any(isinstance(item, fx.Node) for item in items)
            made: Any = low.call(function, *items) if run else function(*items)
            if not rounded:
                return made
            return low.call(single, made) if run else single(made)

        spread = np.broadcast_arrays(*inputs)
        rows = zip(*(part.ravel() for part in spread), strict=True)
        return array([one(*row) for row in rows], spread[0].shape)

    return rule


def largest(*items: Any) -> Any:
    """Return the largest number, also of one alone."""
    return max(items)


def smallest(*items: Any) -> Any:
    """Return the smallest number, also of one alone."""
    return min(items)


def remainder(a: Any, b: Any) -> Any:
    """Return what division toward zero leaves, with the sign of the dividend."""
    return math.fmod(a, b) if isinstance(a, float) else a - b * truncated(a, b)


def _mod(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    function = remainder if low.integer(node, "fmod", 0) else operator.mod
    return _pointwise(function)(low, node, inputs)


def _both(a: Any, b: Any) -> bool:
    return bool(a and b)


def _either(a: Any, b: Any) -> bool:
    return bool(a or b)


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    return a if condition else b


def _cast(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    kind = ir.DataType(node.attributes["to"].as_int())
    function: Any = builtins.float if kind.is_floating_point() else builtins.int
    if kind == ir.DataType.BOOL:
        function = builtins.bool
    return _pointwise(function)(low, node, inputs)


def _gather(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    data, index = inputs  # numbers have at most one axis: there is one to gather along
    if symbolic(index):
        return None
    return array([data[int(k)] for k in index.ravel()], index.shape)


def _concat(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return np.concatenate(list(inputs), axis=low.integer(node, "axis", 0))


def _slice(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    if len(inputs) == 1:
        start, end = (low.ints(node, None, name) or [0] for name in ("starts", "ends"))
        step = [1]
    else:
        bounds = [part for part in (*inputs[1:3], *inputs[4:]) if part is not None]
        if any(symbolic(part) for part in bounds):
            return None
        start, end, step = [*(part.tolist() for part in bounds), [1]][:3]
    return inputs[0][slice(start[0], end[0], step[0])]  # numbers have at most one axis


def _reshape(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    if symbolic(inputs[1]) or inputs[1].size > 1:
        return None
    return inputs[0].reshape(-1 if inputs[1].size else ())


def _squeeze(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return inputs[0].reshape(()) if inputs[0].size == 1 else inputs[0]


def _unsqueeze(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    axes = low.ints(node, None, "axes") or inputs[1]
    return None if inputs[0].ndim else inputs[0].reshape((1,) * len(axes))


def _identity(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return inputs[0]


def _prod(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    total: Any = array([1], ())
    for item in inputs[0].ravel():
        total = _pointwise(operator.mul)(low, node, [total, array([item], ())])
    keep = low.integer(node, "keepdims", 1) and inputs[0].ndim
    return total.reshape(-1) if keep else total


RULES: dict[str, HostRule] = {
    "Add": _pointwise(operator.add),
    "Sub": _pointwise(operator.sub),
    "Mul": _pointwise(operator.mul),
    "Div": _pointwise(truncated),
    "Mod": _mod,
    "Neg": _pointwise(operator.neg),
    "Max": _pointwise(largest),
    "Min": _pointwise(smallest),
    "Floor": _pointwise(math.floor),
    "Ceil": _pointwise(math.ceil),
    "Equal": _pointwise(operator.eq),
    "Greater": _pointwise(operator.gt),
    "GreaterOrEqual": _pointwise(operator.ge),
    "Less": _pointwise(operator.lt),
    "LessOrEqual": _pointwise(operator.le),
    "And": _pointwise(_both),
    "Or": _pointwise(_either),
    "Not": _pointwise(operator.not_),
    "Where": _pointwise(_chosen),
    "Cast": _cast,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Identity": _identity,
    "ReduceProd": _prod,
}
"""Ops on at most one axis of numbers, of which one comes from a shape."""

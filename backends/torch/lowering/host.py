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


def _pointwise(function: Callable[..., Any]) -> HostRule:
    def rule(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
        def one(*items: Any) -> Any:
            if any(isinstance(item, fx.Node) for item in items):
                return low.call(function, *items)
            return function(*items)

        spread = np.broadcast_arrays(*inputs)
        rows = zip(*(part.ravel() for part in spread), strict=True)
        return array([one(*row) for row in rows], spread[0].shape)

    return rule


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
    return array([data[int(k)] for k in index.ravel()], index.shape)


def _concat(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return np.concatenate(list(inputs), axis=low.integer(node, "axis", 0))


def _slice(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    if len(inputs) == 1:
        start, end = (low.ints(node, None, name) or [0] for name in ("starts", "ends"))
        step = [1]
    else:
        start, end = inputs[1].tolist(), inputs[2].tolist()
        step = inputs[4].tolist() if len(inputs) > 4 else [1]
    return inputs[0][slice(start[0], end[0], step[0])]  # numbers have at most one axis


def _reshape(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return inputs[0].reshape([int(n) for n in inputs[1]])


def _squeeze(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return inputs[0].reshape(())


def _unsqueeze(low: Host, node: ir.Node, inputs: Sequence[Numbers]) -> Numbers:
    return inputs[0].reshape(-1)


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
    "Mod": _pointwise(operator.mod),
    "Neg": _pointwise(operator.neg),
    "Max": _pointwise(max),
    "Min": _pointwise(min),
    "Floor": _pointwise(math.floor),
    "Ceil": _pointwise(math.ceil),
    "Equal": _pointwise(operator.eq),
    "Greater": _pointwise(operator.gt),
    "Less": _pointwise(operator.lt),
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

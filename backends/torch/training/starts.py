"""Weights that start from a number, where no layer of torch holds them.

Exporters reshape the slopes of PRelu, and write norms out as several nodes, whose scale and shift
are then operands of a Mul and an Add.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irprune.backends.torch.lowering.layers import SLOPE
from irprune.norms import find_norms

_SCALE, _SHIFT = 1.0, 0.0
_STARTS = {
    ("PRelu", 1): SLOPE,
    ("InstanceNormalization", 1): _SCALE,
    ("InstanceNormalization", 2): _SHIFT,
    ("GroupNormalization", 1): _SCALE,
    ("GroupNormalization", 2): _SHIFT,
}
_LENGTH = "LpNormalization"
"""What is divided by a length, as a weight may be, has no scale that is known to start from 1."""
_MOVES = ("Cast", "CastLike", "Expand", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def starts(graph: ir.Graph) -> dict[str, float]:
    """Return the number that each element of an initializer starts from, where all uses agree."""
    norms = [norm for norm in find_norms(graph).values() if norm.name != _LENGTH]
    normalised = {value for norm in norms for value in norm.outputs}
    found = {}
    for name, value in graph.initializers.items():
        numbers = {_start(node, index, normalised) for node, index in _readers(value)}
        if len(numbers) == 1 and (number := numbers.pop()) is not None:
            found[name] = number
    return found


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield who reads a value, wherever it is moved to."""
    for node, index in value.uses():
        if node.op_type in _MOVES and index == 0:
            yield from _readers(node.outputs[0])
        else:
            yield node, index


def _start(node: ir.Node, index: int, normalised: set[ir.Value]) -> float | None:
    if node.op_type in ("Mul", "Add"):
        other = _origin(node.inputs[1 - index])
        if node.op_type == "Mul":
            return _SCALE if other in normalised else None
        return _SHIFT if other in normalised or _is_scaled(other, normalised) else None
    return _STARTS.get((node.op_type, index))


def _is_scaled(value: ir.Value | None, normalised: set[ir.Value]) -> bool:
    node = None if value is None else value.producer()
    return (
        node is not None
        and node.op_type == "Mul"
        and any(_origin(factor) in normalised for factor in node.inputs)
    )


def _origin(value: ir.Value | None) -> ir.Value | None:
    """Return what a value is moved from."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _MOVES:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return value

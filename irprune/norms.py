"""Normalisations that exporters write out as several nodes, recognised by their statistics.

Policy, reports and the drawing of weights ask for this: what an op computes stays a matter of each
node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irprune.ops.reduce import reduced_axes
from irprune.queries import constant_of

if TYPE_CHECKING:
    import onnx_ir as ir

NORMS = ("GroupNormalization", "LayerNormalization", "LpNormalization", "RMSNormalization")
"""The recognised norms, named like the ops that compute them in one node."""

_STEPS = 2
_BETWEEN = ("Add", "Clip", "Expand", "Identity", "Max")


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm, its nodes that take statistics, and what it makes before any scale and shift."""

    name: str
    nodes: tuple[ir.Node, ...]
    outputs: tuple[ir.Value, ...] = ()


def find_norms(graph: ir.Graph) -> dict[ir.Node, Norm]:
    """Return the norm of every node that takes statistics for one."""
    found: dict[ir.Node, Norm] = {}
    for node in graph:
        norm = None
        if node.op_type == "ReduceMean":
            norm = _mean_of_squares(node)
        elif node.op_type in ("ReduceL1", "ReduceL2"):
            norm = _length(node)
        elif node.op_type == "InstanceNormalization":
            norm = _grouped(node)
        if norm is not None:
            found.update(dict.fromkeys(norm.nodes, norm))
    return found


def _mean_of_squares(node: ir.Node) -> Norm | None:
    """x / sqrt(mean(x ** 2) + epsilon) is an RMSNormalization; of x - mean(x), a layer's."""
    data = _squared(node.inputs[0])
    outputs = tuple(y for root in _roots(node.outputs[0]) for y in _divided_by(root))
    if data is None or not outputs:
        return None
    centre = data.producer()
    if centre is not None and centre.op_type == "Sub":
        left, mean = centre.inputs[0], centre.inputs[1]
        maker = None if mean is None else mean.producer()
        if (
            maker is not None
            and maker.op_type == "ReduceMean"
            and maker.inputs[0] is left
            and reduced_axes(maker) == reduced_axes(node)
        ):
            return Norm("LayerNormalization", (maker, node), outputs)
    return Norm("RMSNormalization", (node,), outputs)


def _squared(value: ir.Value | None) -> ir.Value | None:
    """Return x where the value is x * x or x ** 2."""
    maker = None if value is None else value.producer()
    if maker is None or len(maker.inputs) != 2:
        return None
    left, right = maker.inputs
    if maker.op_type == "Mul" and left is right:
        return left
    return left if maker.op_type == "Pow" and _number(right) == 2 else None


def _roots(variance: ir.Value) -> Iterator[ir.Value]:
    """Yield the roots of variance + epsilon, and their reciprocals."""
    for add in _readers(variance, "Add"):
        for node in _readers(add.outputs[0], "Sqrt", "Pow"):
            if node.op_type == "Sqrt" or _number(node.inputs[1]) in (0.5, -0.5):
                yield node.outputs[0]


def _divided_by(root: ir.Value) -> Iterator[ir.Value]:
    """Yield what is divided by a root, or multiplied with its reciprocal."""
    maker = root.producer()
    inverse = maker is not None and maker.op_type == "Pow" and _number(maker.inputs[1]) == -0.5
    inverses = [root] if inverse else [n.outputs[0] for n in _readers(root, "Reciprocal")]
    for value in inverses:
        yield from (node.outputs[0] for node in _readers(value, "Mul"))
    if not inverse:
        quotients = (node for node in _readers(root, "Div") if node.inputs[1] is root)
        yield from (node.outputs[0] for node in quotients)


def _length(node: ir.Node) -> Norm | None:
    """x / max(norm(x), epsilon): something is divided by the length of itself."""
    if _divided(node.inputs[0], node.outputs[0], _STEPS):
        return Norm("LpNormalization", (node,))
    return None


def _divided(data: ir.Value | None, length: ir.Value, steps: int) -> bool:
    """Return whether the data is divided by a length, with at most `steps` nodes in between."""
    if any(node.inputs[0] is data and node.inputs[1] is length for node in _readers(length, "Div")):
        return True
    between = _readers(length, *_BETWEEN) if steps else ()
    return any(_divided(data, node.outputs[0], steps - 1) for node in between)


def _grouped(node: ir.Node) -> Norm | None:
    """Channels reshaped into groups, each normalised as one, and reshaped back."""
    data = node.inputs[0]
    maker = None if data is None else data.producer()
    grouped = maker is not None and maker.op_type == "Reshape"
    if grouped and any(_readers(node.outputs[0], "Reshape")):
        return Norm("GroupNormalization", (node,), (node.outputs[0],))
    return None


def _readers(value: ir.Value, *kinds: str) -> Iterator[ir.Node]:
    return (node for node, _ in value.uses() if node.op_type in kinds)


def _number(value: ir.Value | None) -> float | None:
    """Return the number that a constant of one element holds."""
    array = constant_of(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None

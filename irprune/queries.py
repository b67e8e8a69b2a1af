"""What a graph says of its values and nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

Dim = int | str | None


def dims_of(value: ir.Value) -> list[Dim] | None:
    """Return the dimensions of a value (int, symbol, or None where unknown); None without rank."""
    if value.shape is None:
        return None
    return [d if isinstance(d, int) else d.value for d in value.shape.dims]


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the numbers of an initializer, or None for anything else."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def describe(node: ir.Node) -> str:
    """Return how messages name a node: its name and op type."""
    return f"{node.name or '(unnamed)'} ({node.op_type})"

"""Vectors of lengths, positions or scales: which elements are known before the run."""

from __future__ import annotations

from itertools import chain
from typing import Any

import onnx_ir as ir

from irprune.queries import constant_of, dims_of


def elements_of(value: ir.Value | None) -> list[int | None] | None:
    """Return the elements of an integer vector, shape ``(elements,)``; None for a computed one.

    `normalize` leaves such vectors as constants, or as a Concat of constants and computed parts.
    The whole result is None where there is no vector, or where its length is unknown.
    """
    return _elements(value)


def scales_of(value: ir.Value | None) -> list[float | None] | None:
    """Return the elements of a floating-point vector, as `elements_of` does."""
    return _elements(value)


def _elements(value: ir.Value | None) -> list[Any] | None:
    numbers = constant_of(value)
    if value is None or numbers is not None:
        return None if numbers is None else numbers.ravel().tolist()
    dims, node = dims_of(value), value.producer()
    if node is not None and node.op_type == "Concat" and not node.domain:
        parts = [_elements(part) for part in node.inputs]
        known = [part for part in parts if part is not None]
        one_axis = dims is not None and len(dims) == 1
        return list(chain(*known)) if one_axis and len(known) == len(parts) else None
    if dims is None or len(dims) != 1 or not isinstance(dims[0], int):
        return None
    return [None] * dims[0]


__all__ = ["elements_of", "scales_of"]

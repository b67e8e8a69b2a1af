"""Attention written as matrix products and a softmax: one kernel of torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import fx
from torch.nn import functional

from irprune.backends.torch.lowering.fuse.common import maker

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering.lower import Lowering

_PER_AXIS_SINCE = 13
"""Softmax normalises one axis from this opset on, before all axes from one on."""


def attention(low: Lowering, node: ir.Node) -> fx.Node | None:
    """Return the attention of which a MatMul is the last node, None where it is none.

    ``softmax(q @ k^T * scale + mask) @ v``, where the mask is absent or a finite constant: torch
    and ONNX disagree about rows that are masked as a whole. What was lowered of it before dies.
    """
    softmax = maker(node.inputs[0], "Softmax")
    if softmax is None or not low.only_reader(node, node.inputs[0]):
        return None
    scores, value = softmax.inputs[0], node.inputs[1]
    rank = low.rank(scores)
    if low.integer(softmax, "axis", -1) not in (-1, rank - 1) or rank < 3:
        return None
    if low.opset < _PER_AXIS_SINCE and low.integer(softmax, "axis", 1) != rank - 1:
        return None
    scores, mask = _apart(low, scores, "Add")
    if mask is not None and not np.isfinite(low.constants[mask]).all():
        return None
    scale = 1.0
    scores, factor = _scaled(low, scores)
    scale *= factor
    product = maker(scores, "MatMul")
    if product is None:
        return None
    query, factor = _scaled(low, product.inputs[0])
    scale *= factor
    key, factor = _scaled(low, product.inputs[1])
    scale *= factor
    if query is None or key is None or value is None:
        return None
    dims = [low.dims(part) if part.shape is not None else [] for part in (query, key, value)]
    if any(len(part) != rank or part[:-2] != dims[0][:-2] or None in part[:-2] for part in dims):
        return None
    if query.dtype != value.dtype or key.dtype != value.dtype:
        return None
    return low.call(
        functional.scaled_dot_product_attention, low.tensor(query), _turned(low, key),
        low.tensor(value), attn_mask=None if mask is None else low.tensor(mask), scale=scale,
    )  # fmt: skip


def _apart(
    low: Lowering, value: ir.Value | None, kind: str
) -> tuple[ir.Value | None, ir.Value | None]:
    """Return the computed and the constant operand of a node; the value alone if it is none."""
    node = maker(value, kind)
    if node is None:
        return value, None
    a, b = node.inputs[0], node.inputs[1]
    if b is not None and b in low.constants and a is not None and low.rank(a) == low.rank(value):
        return a, b
    if a is not None and a in low.constants and b is not None and low.rank(b) == low.rank(value):
        return b, a
    return value, None


def _scaled(low: Lowering, value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Return what a value is a multiple of, and the constant factor."""
    inner, factor = _apart(low, value, "Mul")
    if factor is not None and low.constants[factor].size == 1:
        return inner, float(low.constants[factor].ravel()[0])
    node = maker(value, "Div")
    divisor = None if node is None else low.constant(node.inputs[1])
    if node is not None and divisor is not None and divisor.size == 1 and divisor.all():
        return node.inputs[0], 1 / float(divisor.ravel()[0])
    return value, 1.0


def _turned(low: Lowering, key: ir.Value) -> fx.Node:
    """Return the keys ``(..., length, width)`` of which a value is the transpose."""
    node = maker(key, "Transpose")
    if node is None or "perm" not in node.attributes:
        return low.call(torch.transpose, low.tensor(key), -1, -2)
    *outer, a, b = node.attributes["perm"].as_ints()
    order = [*outer, b, a]
    if order == list(range(len(order))):
        return low.data(node)
    return low.call(torch.permute, low.data(node), order)

"""Attention, as an op and written as matrix products and a softmax: one kernel of torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from irprune.backends.torch.lowering.fuse.common import maker
from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
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


_MASK, _PAST_KEY, _PAST_VALUE, _VALID = 3, 4, 5, 6


def _attention(low: Lowering, node: ir.Node) -> tuple[fx.Node, ...]:
    given = [low.input(node, k) for k in (_MASK, _PAST_KEY, _PAST_VALUE, _VALID)]
    mask, past_key, past_value, valid = (v if v is None else low.tensor(v) for v in given)
    causal = bool(low.integer(node, "is_causal", 0))
    if low.real(node, "softcap", 0.0):
        raise Unsupported("it caps its scores")
    if causal and (past_key is not None or valid is not None):
        raise Unsupported("it is causal, and its keys come from a cache")
    scale = low.real(node, "scale", 0.0) or None
    q, k, v = (low.data(node, index) for index in range(3))
    if low.rank(low.input(node, 0)) == 3:
        many, few = (low.integer(node, f"{kind}_num_heads", 0) for kind in ("q", "kv"))
        q, k, v = (low.call(apart, x, n) for x, n in ((q, many), (k, few), (v, few)))
    k, v = (
        x if past is None else low.call(torch.cat, [past, x], 2)
        for x, past in ((k, past_key), (v, past_value))
    )
    y = low.call(attend, q, k, v, mask, valid, causal, scale)
    if low.rank(low.input(node, 0)) == 3:
        y = low.call(together, y)
    if not low.is_read(node, 3):
        return y, k, v
    if low.integer(node, "qk_matmul_output_mode", 0):
        raise Unsupported("its scores are read after the mask")
    return y, k, v, low.call(scores, q, k, scale)


def apart(x: Tensor, heads: int) -> Tensor:
    """Turn ``(batch, places, heads * width)`` into ``(batch, heads, places, width)``."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def together(x: Tensor) -> Tensor:
    """Turn ``(batch, heads, places, width)`` into ``(batch, places, heads * width)``."""
    return x.transpose(1, 2).flatten(2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    valid: Tensor | None,
    causal: bool,
    scale: float | None,
) -> Tensor:
    """Attention of opset 23 on operands ``(batch, heads, places, width)``.

    Each head of `k` and `v` serves as many consecutive ones of `q`. `mask` is added, or says where
    to look; so does `valid`, by the number of keys ``(batch,)`` that are no padding; `causal` goes
    without it.
    """
    k, v = _repeated(k, q), _repeated(v, q)
    if causal and mask is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    seen = None
    if causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    if valid is not None:
        seen = torch.arange(k.shape[2], device=q.device) < valid[:, None, None, None]
    if mask is None or seen is None:
        mask = seen if mask is None else mask
    else:
        mask = mask & seen if mask.dtype == torch.bool else torch.where(seen, mask, -torch.inf)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def scores(q: Tensor, k: Tensor, scale: float | None) -> Tensor:
    """Return what attention takes the softmax of, without a mask."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    return q @ _repeated(k, q).transpose(-1, -2) * factor


def _repeated(x: Tensor, q: Tensor) -> Tensor:
    return x.repeat_interleave(q.shape[1] // x.shape[1], 1) if x.shape[1] < q.shape[1] else x


def _rotary_embedding(low: Lowering, node: ir.Node) -> fx.Node:
    places = low.input(node, 3)
    heads = low.integer(node, "num_heads", 0)
    if low.rank(low.input(node, 0)) == 3 and not heads:
        raise Unsupported("it does not say how many heads it has")
    return low.call(
        rotated, low.data(node, 0), low.data(node, 1), low.data(node, 2),
        None if places is None else low.tensor(places), heads,
        low.integer(node, "rotary_embedding_dim", 0), bool(low.integer(node, "interleaved", 0)),
    )  # fmt: skip


def rotated(
    x: Tensor, cos: Tensor, sin: Tensor, places: Tensor | None, heads: int, width: int, mixed: bool
) -> Tensor:
    """RotaryEmbedding: turn pairs of the first `width` numbers of each head by their place.

    Args:
        x: ``(batch, heads, places, all)`` or ``(batch, places, heads * all)``.
        cos, sin: ``(batch, places, width / 2)``, or a table that `places` index.
        mixed: pairs are neighbours; otherwise they lie half the width apart.
    """
    flat = x.dim() == 3
    x = apart(x, heads) if flat else x
    if places is not None:
        cos, sin = cos[places], sin[places]
    cos, sin = cos[:, None], sin[:, None]
    width = width or x.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    a, b = (turned[..., ::2], turned[..., 1::2]) if mixed else turned.chunk(2, -1)
    pair = (a * cos - b * sin, a * sin + b * cos)
    turned = torch.stack(pair, -1).flatten(-2) if mixed else torch.cat(pair, -1)
    result = torch.cat([turned, rest], -1)
    return together(result) if flat else result


RULES: dict[str, Rule] = {"Attention": _attention, "RotaryEmbedding": _rotary_embedding}

"""nn.MultiheadAttention whose heads are narrower or fewer than its embedding says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from irprune.errors import IrpruneError
from irprune.plan import Kept, Mask, first_row


class ShrunkAttention(nn.MultiheadAttention):
    """Multi-head attention with the tensors and the interface of its base.

    `widths` are the lengths of one head's queries (and keys) and of its values; scores are scaled
    as before shrinking. torch's own forward takes both widths to be ``embed_dim / num_heads``.
    """

    widths: tuple[int, int]
    scale: float

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See nn.MultiheadAttention: inputs ``(L, N, E)``, ``(N, L, E)`` or ``(L, E)``."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (part.unsqueeze(1) for part in (query, key, value))
        turned = self.batch_first and batched
        if not turned:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        inner, outer = (self.num_heads * width for width in self.widths)
        weights = torch.split(self.in_proj_weight, [inner, inner, outer])
        biases: Sequence[Tensor | None] = (None, None, None)
        if self.in_proj_bias is not None:
            biases = torch.split(self.in_proj_bias, [inner, inner, outer])
        parts = [
            self._heads(functional.linear(part, weight, bias))
            for part, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        scores = parts[0] @ parts[1].transpose(2, 3) * self.scale
        scores = self._masked(scores, attn_mask, key_padding_mask)
        attention = scores.softmax(-1)
        spread = functional.dropout(attention, self.dropout, self.training)
        result = self.out_proj((spread @ parts[2]).transpose(1, 2).flatten(2))
        if average_attn_weights:
            attention = attention.mean(1)
        if not turned:
            result = result.transpose(0, 1)
        if not batched:
            result, attention = result.squeeze(1), attention.squeeze(0)
        return result, attention if need_weights else None

    def _heads(self, rows: Tensor) -> Tensor:
        """Cut ``(N, L, heads * width)`` into ``(N, heads, L, width)``."""
        return rows.reshape(*rows.shape[:2], self.num_heads, -1).transpose(1, 2)

    @staticmethod
    def _masked(scores: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
        """Add the masks to scores ``(N, heads, L, S)``; where a mask is boolean, True hides."""
        if mask is not None:
            if mask.dim() == 3:
                mask = mask.view(scores.shape)
            scores = _hidden(scores, mask)
        if padding is not None:
            scores = _hidden(scores, padding.view(-1, 1, 1, scores.shape[-1]))
        return scores


def _hidden(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else scores + mask


def shrink_attention(layer: nn.Module, masks: Mapping[str, Mapping[int, Kept]]) -> None:
    """Repair an attention layer whose in_proj_weight ``(3 E, E)`` is already sliced."""
    assert isinstance(layer, nn.MultiheadAttention)
    if layer.in_proj_weight is None or layer.bias_k is not None or layer.add_zero_attn:
        raise IrpruneError("it has separate projections, bias_k or add_zero_attn")
    shrunk = isinstance(layer, ShrunkAttention)
    widths = layer.widths if isinstance(layer, ShrunkAttention) else 2 * (layer.head_dim,)
    scale = layer.scale if isinstance(layer, ShrunkAttention) else layer.head_dim**-0.5
    heads = layer.num_heads
    layer.embed_dim = layer.kdim = layer.vdim = layer.in_proj_weight.shape[1]
    mask = masks.get("in_proj_weight", {}).get(0)
    if mask is not None:
        heads, widths = kept_heads(first_row(mask), heads, widths)
    elif not shrunk and layer.embed_dim == heads * widths[0]:
        return
    layer.__class__ = ShrunkAttention
    assert isinstance(layer, ShrunkAttention)
    layer.widths, layer.scale, layer.num_heads = widths, scale, heads
    layer.head_dim = widths[0]
    layer._qkv_same_embed_dim = False  # keeps TransformerEncoderLayer off its fast path


def kept_heads(mask: Mask, heads: int, widths: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Return the heads left and the widths of their queries and values.

    The mask has one entry per row of queries, keys and values, head by head.
    """
    inner = heads * widths[0]
    parts = np.split(mask, [inner, 2 * inner])
    counts = [part.reshape(heads, -1).sum(1) for part in parts]
    alive = counts[0] > 0
    same = all(((count > 0) == alive).all() for count in counts)
    sizes = [set(count[alive].tolist()) for count in counts]
    if not same or not alive.any() or sizes[0] != sizes[1] or any(len(size) != 1 for size in sizes):
        raise IrpruneError("its heads keep different numbers of channels")
    return int(alive.sum()), (sizes[0].pop(), sizes[2].pop())

"""What shrinking means for each standard layer: which attributes state the sizes of its tensors.

`REPAIRS` has one function per layer type; it gets the layer with its tensors already sliced, and
the old masks by tensor name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from irprune.errors import IrpruneError
from irprune.frontends.torch.attention import shrink_attention
from irprune.plan import Kept, Mask, first_row

Masks = Mapping[str, Mapping[int, Kept]]
"""Kept positions by tensor name and axis."""
Repair = Callable[[Any, Masks], None]


def kept_groups(mask: Kept | None, groups: int) -> int:
    """Return how many equal runs of an axis are left; those that go must go as a whole."""
    if mask is None or groups == 1:
        return groups
    counts: Mask = first_row(mask).reshape(groups, -1).sum(1)
    left = counts[counts > 0]
    if len(set(left.tolist())) > 1:
        raise IrpruneError(f"its {groups} groups keep different numbers of channels")
    return len(left)


def _conv(layer: Any, masks: Masks) -> None:
    """Weight ``(out, in / groups, ...)``."""
    layer.groups = kept_groups(masks.get("weight", {}).get(0), layer.groups)
    layer.out_channels = layer.weight.shape[0]
    layer.in_channels = layer.weight.shape[1] * layer.groups


def _conv_transpose(layer: Any, masks: Masks) -> None:
    """Weight ``(in, out / groups, ...)``."""
    layer.groups = kept_groups(masks.get("weight", {}).get(0), layer.groups)
    layer.in_channels = layer.weight.shape[0]
    layer.out_channels = layer.weight.shape[1] * layer.groups


def _linear(layer: Any, masks: Masks) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _batch_norm(layer: Any, masks: Masks) -> None:
    tensors = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    layer.num_features = next(len(tensor) for tensor in tensors if tensor is not None)


def _layer_norm(layer: Any, masks: Masks) -> None:
    layer.normalized_shape = tuple(layer.weight.shape)


def _group_norm(layer: Any, masks: Masks) -> None:
    layer.num_groups = kept_groups(masks.get("weight", {}).get(0), layer.num_groups)
    layer.num_channels = len(layer.weight)


def _embedding(layer: Any, masks: Masks) -> None:
    rows = masks.get("weight", {}).get(0)
    if rows is not None and layer.padding_idx is not None:
        kept = np.flatnonzero(first_row(rows))
        if layer.padding_idx not in kept:
            raise IrpruneError("it loses the row of its padding_idx")
        layer.padding_idx = int(np.searchsorted(kept, layer.padding_idx))
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _prelu(layer: Any, masks: Masks) -> None:
    layer.num_parameters = len(layer.weight)


REPAIRS: dict[type[nn.Module], Repair] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.ConvTranspose1d: _conv_transpose,
    nn.ConvTranspose2d: _conv_transpose,
    nn.ConvTranspose3d: _conv_transpose,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm3d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.InstanceNorm1d: _batch_norm,
    nn.InstanceNorm2d: _batch_norm,
    nn.InstanceNorm3d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.PReLU: _prelu,
    nn.MultiheadAttention: shrink_attention,
}

CONTRACTED: dict[type[nn.Module], Sequence[tuple[str, int]]] = {
    nn.Conv1d: [("weight", 1)],
    nn.Conv2d: [("weight", 1)],
    nn.Conv3d: [("weight", 1)],
    nn.ConvTranspose1d: [("weight", 0)],
    nn.ConvTranspose2d: [("weight", 0)],
    nn.ConvTranspose3d: [("weight", 0)],
    nn.Linear: [("weight", 1)],
    nn.MultiheadAttention: [("in_proj_weight", 1), ("in_proj_weight", 0), ("in_proj_bias", 0)],
}
"""The tensor axes that a layer sums over: setting dropped positions to zero masks its input. Of the
rows of an attention layer, those of queries and keys are summed over too."""


def standard(layer: nn.Module) -> type[nn.Module] | None:
    """Return the standard type that a layer is or derives from."""
    return next((kind for kind in type(layer).__mro__ if kind in REPAIRS), None)


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer computes what its standard type does."""
    kind = standard(layer)
    return kind is not None and type(layer).forward is kind.forward

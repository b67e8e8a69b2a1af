"""Attention written by hand: the attributes by which it cuts its channels into heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from irprune.plan import Mask

_WIDTHS = ("head_dim", "dim_head", "head_width")
_WHOLES = ("attn_dim", "all_head_dim", "inner_dim")


def states_heads(layer: nn.Module) -> str | None:
    """Return the integer attribute by which a layer written by hand cuts its channels."""
    numbers = [name for name, value in vars(layer).items() if type(value) is int and value > 1]
    return next((name for name in numbers if "head" in name and name not in _WIDTHS), None)


def refit(layer: Any, cut: Mapping[str, Mask]) -> None:
    """State the number and the width of the heads that are left after the projections were `cut`.

    The forward stays. Where it takes the numbers from elsewhere, or the projections disagree,
    nothing that can be set here helps: running the module tells.
    """
    count, width = states_heads(layer), _stated(layer, _WIDTHS)
    if count is None or width is None:
        return
    heads, size = getattr(layer, count), getattr(layer, width)
    found = {_left(mask, heads, size) for mask in cut.values() if len(mask) % (heads * size) == 0}
    if len(found) != 1 or (left := found.pop()) is None:
        return
    for name in _WHOLES:
        if getattr(layer, name, None) == heads * size:
            setattr(layer, name, left[0] * left[1])
    setattr(layer, count, left[0])
    setattr(layer, width, left[1])
    if left[1] != size and getattr(layer, "fused_attn", False) is True:
        layer.fused_attn = False  # torch's fused attention would scale by the new width


def _stated(layer: nn.Module, names: Iterable[str]) -> str | None:
    return next((name for name in names if type(getattr(layer, name, None)) is int), None)


def _left(mask: Mask, heads: int, width: int) -> tuple[int, int] | None:
    """Return how many heads are left and their width, None where they differ.

    The mask has one entry per row of a projection: of queries, keys and values, head by head.
    """
    counts = mask.reshape(-1, heads, width).sum(2)
    alive = counts[0] > 0
    sizes = set(counts[:, alive].flatten().tolist())
    if len(sizes) != 1 or counts[:, ~alive].any():
        return None
    return int(alive.sum()), sizes.pop()

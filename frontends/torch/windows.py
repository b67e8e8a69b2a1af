"""torchvision's attention in shifted windows (Swin, Swin v2), with narrower or fewer heads.

Its function takes the width of a head from the width of its input, so that no attribute can make
it smaller: a shrunk layer keeps its class, tensors and interface, and gets a forward of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from irprune.frontends.torch.attention import kept_heads
from irprune.plan import Mask

_NAME = ("torchvision.models.swin_transformer", "ShiftedWindowAttention")
_HIDDEN = -100.0
"""What torchvision adds to scores between regions that only the cyclic shift made neighbours."""


def is_windowed(layer: nn.Module) -> bool:
    """Return whether a layer is torchvision's ShiftedWindowAttention or the one of Swin v2."""
    known = any((kind.__module__, kind.__name__) == _NAME for kind in type(layer).__mro__)
    return known and type(layer).forward.__module__ in (_NAME[0], __name__)


class ShrunkWindows(nn.Module):
    """The forward of a shrunk layer, mixed into its class.

    `widths` are the lengths of one head's queries (and keys) and of its values; where scores are
    not those of cosines (Swin v2), they are scaled as before shrinking.
    """

    widths: tuple[int, int]
    scale: float
    num_heads: int
    window_size: list[int]
    shift_size: list[int]
    attention_dropout: float
    dropout: float
    qkv: nn.Linear
    proj: nn.Linear
    get_relative_position_bias: Callable[[], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, H, W, C)`` to the same shape."""
        _, height, width, _ = x.shape
        high, wide = self.window_size
        x = functional.pad(x, (0, 0, 0, -width % wide, 0, -height % high))
        sizes = x.shape[1:3]
        shift = [
            0 if window >= size else step
            for step, window, size in zip(self.shift_size, self.window_size, sizes, strict=True)
        ]
        x = self._windows(x.roll((-shift[0], -shift[1]), (1, 2)))
        query, key, value = self._projected(x)
        scores = self._scores(query, key) + self.get_relative_position_bias()
        if any(shift):
            hidden = self._hidden(sizes, shift).to(scores)
            scores = scores.reshape(-1, *hidden.shape[:1], *scores.shape[1:])
            scores = (scores + hidden.unsqueeze(1)).flatten(0, 1)
        spread = functional.dropout(scores.softmax(-1), self.attention_dropout, self.training)
        x = self.proj((spread @ value).transpose(1, 2).flatten(2))
        x = functional.dropout(x, self.dropout, self.training)
        x = x.reshape(-1, sizes[0] // high, sizes[1] // wide, high, wide, x.shape[-1])
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2).roll(shift, (1, 2))
        return x[:, :height, :width].contiguous()

    def _windows(self, x: Tensor) -> Tensor:
        """Cut ``(N, H, W, C)`` into ``(N * windows, places of a window, C)``."""
        (high, wide), (n, height, width, channels) = self.window_size, x.shape
        x = x.reshape(n, height // high, high, width // wide, wide, channels)
        return x.transpose(2, 3).reshape(-1, high * wide, channels)

    def _projected(self, x: Tensor) -> list[Tensor]:
        """Return queries, keys and values ``(windows, heads, places, width)``."""
        inner, outer = (self.num_heads * width for width in self.widths)
        bias: Tensor | None = self.qkv.bias
        if bias is not None and hasattr(self, "logit_scale"):  # Swin v2 has no bias on its keys
            bias = bias.clone()
            bias[inner : 2 * inner] = 0
        rows = functional.linear(x, self.qkv.weight, bias)
        parts = torch.split(rows, [inner, inner, outer], -1)
        shape = (*rows.shape[:2], self.num_heads, -1)
        return [part.reshape(shape).transpose(1, 2) for part in parts]

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Return ``(windows, heads, places, places)``."""
        limit: Tensor | None = getattr(self, "logit_scale", None)
        if limit is None:
            return query * self.scale @ key.mT
        cosines = functional.normalize(query, dim=-1) @ functional.normalize(key, dim=-1).mT
        return cosines * limit.clamp(max=math.log(100)).exp()

    def _hidden(self, sizes: torch.Size, shift: list[int]) -> Tensor:
        """Return what to add between the places of each window, ``(windows, places, places)``."""
        regions = []
        for size, window, step in zip(sizes, self.window_size, shift, strict=True):
            place = torch.arange(size)
            regions.append((place >= size - window).int() + (place >= size - step).int())
        places = self._windows((3 * regions[0][:, None] + regions[1])[None, :, :, None]).squeeze(-1)
        return _HIDDEN * (places.unsqueeze(1) != places.unsqueeze(2))

    def __reduce__(self) -> tuple[Any, ...]:
        return _bare, (type(self).__bases__[1],), self.__dict__


def _shrunk(kind: type[nn.Module]) -> type[nn.Module]:
    return type(f"Shrunk{kind.__name__}", (ShrunkWindows, kind), {})


def _bare(kind: type[nn.Module]) -> nn.Module:
    made = _shrunk(kind)
    return made.__new__(made)


def shrink_windows(layer: nn.Module, cut: Mapping[str, Mask]) -> None:
    """Repair a layer whose `qkv`, of ``(3 * heads * width, C)``, is already sliced by `cut`."""
    own: Any = layer
    mask, heads = cut.get("qkv"), own.num_heads
    rows = len(own.qkv.weight) if mask is None else len(mask)
    shrunk = isinstance(layer, ShrunkWindows)
    widths = own.widths if shrunk else 2 * (rows // 3 // heads,)
    if mask is None and (shrunk or own.qkv.weight.shape[1] == heads * widths[0]):
        return
    if not shrunk:
        own.__class__, own.scale = _shrunk(type(layer)), widths[0] ** -0.5
    own.num_heads, own.widths = (heads, widths) if mask is None else kept_heads(mask, heads, widths)

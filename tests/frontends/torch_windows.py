"""Attention with torchvision's interface of Swin, computed in another way: over the whole image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

TORCHVISION = "torchvision.models.swin_transformer"


class ShiftedWindowAttention(nn.Module):
    """Attention of `heads` heads in shifted windows; of cosines as in Swin v2 where asked."""

    __module__ = TORCHVISION

    def __init__(self, shift: int = 1, cosines: bool = False, width: int = 12) -> None:
        super().__init__()
        self.window_size, self.shift_size = [2, 2], [shift, shift]
        self.num_heads = 3
        self.attention_dropout = self.dropout = 0.1
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn(self.num_heads, 4, 4))
        if cosines:
            self.logit_scale = nn.Parameter(torch.rand(self.num_heads, 1, 1) * 2)

    def get_relative_position_bias(self) -> Tensor:
        return self.table.unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        x = functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        rows, columns = x.shape[1:3]
        (window, place, region), (w2, p2, r2) = self._places(rows, 0), self._places(columns, 1)
        window = (window[:, None] * columns + w2).flatten()
        place = (2 * place[:, None] + p2).flatten()
        region = (3 * region[:, None] + r2).flatten()
        cosines = hasattr(self, "logit_scale")
        bias = self.qkv.bias
        if cosines:
            bias = bias.clone()
            bias[channels : 2 * channels] = 0
        rows3 = functional.linear(x.flatten(1, 2), self.qkv.weight, bias)
        parts = rows3.reshape(n, rows * columns, 3, self.num_heads, channels // self.num_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if cosines:
            q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
            scores = q @ k.mT * self.logit_scale.clamp(max=4.605170186).exp()
        else:
            scores = q @ k.mT * (channels // self.num_heads) ** -0.5
        scores = scores + self.get_relative_position_bias()[:, :, place[:, None], place]
        scores = scores - 100.0 * (region[:, None] != region)
        scores = scores.masked_fill(window[:, None] != window, -1e9)
        y = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, rows * columns, channels))
        return y.reshape(n, rows, columns, channels)[:, :height, :width]

    def _places(self, size: int, axis: int) -> tuple[Tensor, Tensor, Tensor]:
        """The window of each row (or column), its place in there, and its region."""
        shift = self.shift_size[axis] if size > 2 else 0
        moved = (torch.arange(size) - shift) % size
        region = (moved >= size - 2).int() + (moved >= size - shift).int()
        return moved // 2, moved % 2, region


ShiftedWindowAttention.forward.__module__ = TORCHVISION

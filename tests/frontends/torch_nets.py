"""Small PyTorch networks with what makes exporting and shrinking hard."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from irprune import Model
from irprune.backends.ort.runner import OrtRunner


class Mixed(nn.Module):
    """BatchNorm, a depthwise and a grouped convolution, a residual, dropout, a buffer, a tie."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.act = nn.PReLU(16)
        self.shared = nn.BatchNorm2d(16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.group_norm = nn.GroupNorm(3, 12)
        self.fc = nn.Linear(12, 5)
        self.twin = nn.Linear(12, 5)
        self.twin.weight = self.fc.weight
        self.unused = nn.Linear(7, 2)
        self.register_buffer("shift", torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(self.stem(x))) + self.shift
        y = self.shared(self.depthwise(y)) + y
        y = self.act(self.shared(self.grouped(y)))
        y = functional.dropout(self.group_norm(self.up(y)), 0.5, training=True)
        y = y.mean((2, 3))
        return self.fc(y) + self.twin(y)


class Attention(nn.Module):
    """nn.MultiheadAttention and a transformer layer: in_proj_weight, 3-D linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.head = nn.Linear(16, 11, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.layer(x))


class Handmade(nn.Module):
    """Attention written by hand, whose width per head is a number of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.qkv(x).reshape(n, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


def randomised(module: nn.Module) -> nn.Module:
    """Give the statistics and affine parameters of norms, and the biases, real values."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    return module


def run_graph(model: Model, x: Tensor) -> np.ndarray:
    """Return the only output of a model of one input."""
    with TemporaryDirectory() as folder, OrtRunner() as runner:
        model.save(path := Path(folder) / "model.onnx")
        (found,) = runner.run(path, {model.ir.graph.inputs[0].name or "": x.numpy()}).values()
    return found

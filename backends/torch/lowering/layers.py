"""Layers that torch lacks: those of its own whose tensors lie as the graph's initializers do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.25
"""What the slopes of nn.PReLU start from."""


class PReLU(nn.Module):
    """PRelu whose slopes have the shape ``(C, 1, 1)``."""

    weight: Tensor

    def reset_parameters(self) -> None:
        """Draw as nn.PReLU does: all slopes alike."""
        nn.init.constant_(self.weight, SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return functional.prelu(x, self.weight.flatten())


class Hardmax(nn.Module):
    """One where the first largest number of an axis is, zero elsewhere."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(self.axis, x.argmax(self.axis, keepdim=True), 1)

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


class ColumnLinear(nn.Module):
    """A linear layer whose weight is ``(in, out)``, as MatMul and Gemm have it; bias ``(out,)``."""

    weight: Tensor

    def __init__(self, biased: bool) -> None:
        super().__init__()
        self.biased = biased

    def reset_parameters(self) -> None:
        """Draw as nn.Linear does: evenly, within one over the root of the inputs."""
        bound = len(self.weight) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.biased:
            nn.init.uniform_(self.bias, -bound, bound)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.biased else None
        return functional.linear(x, self.weight.t(), bias)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"biased={self.biased}"


class FrozenBatchNorm(nn.Module):
    """BatchNorm whose scale or shift does not train, or whose statistics are computed."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
    ) -> Tensor:
        if not (mean.requires_grad or variance.requires_grad):
            return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, self.eps)
        # torch has no gradient for statistics that follow from what trains (a standardised weight).
        scale = weight * (variance + self.eps).rsqrt()
        shape = (-1, *[1] * (x.dim() - 2))
        return (x - mean.view(shape)) * scale.view(shape) + bias.view(shape)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class GroupNorm(nn.GroupNorm):
    """As torch's, which refuses groups of one element: these come to the bias."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, per_group: bool
) -> Tensor:
    """GroupNormalization; before opset 21 scale and bias have one number per group."""
    if per_group:
        width = x.shape[1] // groups
        weight, bias = weight.repeat_interleave(width), bias.repeat_interleave(width)
    return torch.group_norm(x, groups, weight, bias, eps)


def same_pad(
    x: Tensor, kernel: list[int], strides: list[int], dilations: list[int], upper: bool, fill: float
) -> Tensor:
    """Pad the spatial axes so that a window gives ceil(length / stride) outputs."""
    pads: list[int] = []
    for k in reversed(range(len(kernel))):
        length = x.shape[2 + k]
        outputs = -(-length // strides[k])
        total = max((outputs - 1) * strides[k] + (kernel[k] - 1) * dilations[k] + 1 - length, 0)
        small = total // 2
        pads += [small, total - small] if upper else [total - small, small]
    return functional.pad(x, pads, value=fill)


def mean_pool_inside(
    x: Tensor, kernel: list[int], strides: list[int], pads: list[int], ceil: bool
) -> Tensor:
    """Average pooling with padding of torch's order that does not count."""
    pool = [functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d][len(kernel) - 1]
    ones = torch.ones_like(x[:1, :1])
    sums = pool(functional.pad(x, pads), kernel, strides, 0, ceil)
    shares = pool(functional.pad(ones, pads), kernel, strides, 0, ceil)
    means = sums / shares
    return within(means, x, strides, pads[-2::-2]) if ceil else means


def lp_pool(x: Tensor, power: int, kernel: list[int], strides: list[int], ceil: bool) -> Tensor:
    """Norms of windows: torch's own of odd powers have signs, and are too large at the edges."""
    powers = x.abs().pow(power)
    if len(kernel) == 1:
        powers, kernel, strides = powers.unsqueeze(-2), [1, *kernel], [1, *strides]
    pool = functional.avg_pool3d if len(kernel) == 3 else functional.avg_pool2d
    sums = pool(powers, kernel, strides, 0, ceil, divisor_override=1)
    sums = sums if sums.dim() == x.dim() else sums.squeeze(-2)
    some = sums > 0  # a root has no slope at zero
    return torch.where(some, torch.where(some, sums, 1.0).pow(1 / power), 0.0)


def within(pooled: Tensor, x: Tensor, strides: list[int], before: list[int]) -> Tensor:
    """Cut windows off that begin behind the data: lengths rounded up count them in padded data."""
    for k, (stride, head) in enumerate(zip(strides, before, strict=True), 2):
        reached = -(-(x.shape[k] + head) // stride)
        pooled = pooled.narrow(k, 0, reached) if reached < pooled.shape[k] else pooled
    return pooled


def mean_pool_same(
    x: Tensor, padded: Tensor, kernel: list[int], strides: list[int], upper: bool, ceil: bool
) -> Tensor:
    """Average pooling of data padded to keep its size, where the padding does not count."""
    pool = [functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d][len(kernel) - 1]
    ones = same_pad(torch.ones_like(x[:1, :1]), kernel, strides, [1] * len(kernel), upper, 0.0)
    return pool(padded, kernel, strides, 0, ceil) / pool(ones, kernel, strides, 0, ceil)

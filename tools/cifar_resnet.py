"""The CIFAR-10 ResNets of He et al. (2016) in PyTorch, as the shared state_dicts name them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import avg_pool2d, relu

BLOCKS = {"resnet20": 3, "resnet56": 9}


class Widen(nn.Conv2d):
    """The option-A shortcut: every second pixel, zero channels on both sides.

    Written as a fixed 1x1 convolution, because Torch-Pruning cannot shrink a constant pad. It
    only selects channels, so its MACs do not count.
    """

    selects = True

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 1, stride=2, bias=False)
        weight = torch.zeros(after, before, 1, 1)
        weight[torch.arange(before) + (after - before) // 2, torch.arange(before)] = 1
        self.weight = nn.Parameter(weight)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Identity() if stride == 1 else Widen(before, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                Block(before, after, stride), *[Block(after, after, 1) for _ in range(blocks - 1)]
            )
            for before, after, stride in widths
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = self.layer3(self.layer2(self.layer1(y)))
        return self.linear(avg_pool2d(y, y.shape[3]).flatten(1))


def load_resnet(name: str, shared: Path) -> ResNet:
    """Return the trained network, in eval mode; every trained tensor must find its place."""
    network = ResNet(BLOCKS[name])
    state = load_file(shared / "models" / "torch" / f"{name}_cifar10.safetensors")
    missing, unexpected = network.load_state_dict(state, strict=False)
    if unexpected or any("shortcut" not in key for key in missing):
        raise ValueError(f"{name}: missing {missing}, unexpected {unexpected}")
    return network.eval()

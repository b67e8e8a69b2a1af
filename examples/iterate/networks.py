"""The networks of the iterative-pruning paper's table 1, as torch modules with example inputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn


def lenet_300_100() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """784-300-100-10: 266,610 parameters (the paper: 0.27 M)."""
    layers = OrderedDict(
        fc1=nn.Linear(784, 300),
        relu1=nn.ReLU(),
        fc2=nn.Linear(300, 100),
        relu2=nn.ReLU(),
        fc3=nn.Linear(100, 10),
    )
    return nn.Sequential(layers), (torch.zeros(2, 784),)


def lenet_5() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Two padded 3x3 convolutions of 64, max-pool, dense 256-256-10: 4,301,642 (4.30 M)."""
    layers = OrderedDict(
        conv1=nn.Conv2d(3, 64, 3, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(64, 64, 3, padding=1),
        relu2=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * 16 * 16, 256),
        relu3=nn.ReLU(),
        fc2=nn.Linear(256, 256),
        relu4=nn.ReLU(),
        fc3=nn.Linear(256, 10),
    )
    return nn.Sequential(layers), (torch.zeros(2, 3, 32, 32),)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 around which the stream is added, widened fourfold."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = nn.Sequential()
        if inputs != 4 * width:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def resnet(blocks: Sequence[int], width: int, classes: int) -> nn.Sequential:
    """A ResNet of bottlenecks, so many in each stage; parameters are named as in torchvision."""
    layers = OrderedDict[str, nn.Module](
        conv1=nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, 2, padding=1),
    )
    inputs = width
    for stage, count in enumerate(blocks):
        made = []
        for number in range(count):
            made.append(Bottleneck(inputs, width << stage, 2 if stage and not number else 1))
            inputs = 4 * width << stage
        layers[f"layer{stage + 1}"] = nn.Sequential(*made)
    layers |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["fc"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


def resnet_50() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Stages of 3, 4, 6 and 3 bottlenecks on 224x224: 25,557,032 (25.6 M)."""
    return resnet((3, 4, 6, 3), 64, 1000), (torch.zeros(2, 3, 224, 224),)

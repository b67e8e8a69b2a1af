"""The networks of the iterative-pruning paper's table 1, as torch modules with example inputs."""

from __future__ import annotations

from collections import OrderedDict

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


def resnet_50() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """torchvision's ResNet-50: 25.6 M."""
    from torchvision.models import resnet50

    return resnet50(), (torch.zeros(2, 3, 224, 224),)

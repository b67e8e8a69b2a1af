"""How images and the weights of convolutions lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irprune.recipe import Machine

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid(x: Tensor, machine: Machine) -> Tensor:
    """Return a tensor of images or weights as the machine wants it; others stay as they are."""
    layout = _CHANNELS_LAST.get(x.ndim)
    return x if layout is None or not machine.channels_last else x.contiguous(memory_format=layout)


def lay_out(module: nn.Module, machine: Machine) -> None:
    """Lay out a module's weights in place."""
    for parameter in module.parameters():
        parameter.data = laid(parameter.data, machine)

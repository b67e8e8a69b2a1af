"""Weights drawn anew, layer by layer, as torch draws them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import nn

from irprune.errors import IrpruneError, listed

_STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def draw_weights(module: nn.Module, starts: Mapping[str, float] = MappingProxyType({})) -> None:
    """Draw all that trains anew, from torch's global generator; what is frozen stays.

    Args:
        starts: numbers that parameters which no layer draws start from, by name.

    Raises:
        IrpruneError: no layer knows how a weight is drawn, such as a bare parameter.
    """
    left = dict(module.named_parameters())
    drawn = {id(parameter) for layer in module.modules() for parameter in _drawn(layer)}
    left = {name: parameter for name, parameter in left.items() if id(parameter) not in drawn}
    for name in left.keys() & starts.keys():
        nn.init.constant_(left.pop(name), starts[name])
    if left:
        reason = f"no layer says how to draw {listed(sorted(left))} anew"
        raise IrpruneError(reason, mend='keep the weights: set weights = "given"')


def _drawn(layer: nn.Module) -> list[nn.Parameter]:
    """Draw the weights of one layer as torch does; return them."""
    own = list(layer.parameters(recurse=False))
    reset = getattr(layer, "reset_parameters", None)
    if not own or not callable(reset):
        return []
    frozen = [
        (buffer, buffer.clone())
        for name, buffer in layer.named_buffers(recurse=False)
        if name not in _STATISTICS
    ]
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        _reset_batch_norm(layer)
    else:
        reset()
    for buffer, before in frozen:
        buffer.copy_(before)
    return own


def _reset_batch_norm(layer: nn.modules.batchnorm._BatchNorm) -> None:
    """Do what torch does, which trips over a lowered one: that counts no batches."""
    for tensor, number in (
        (layer.weight, 1),
        (layer.bias, 0),
        (layer.running_mean, 0),
        (layer.running_var, 1),
    ):
        if tensor is not None:
            nn.init.constant_(tensor, number)

"""Random weights that prove something: no part of a network is constant, dead or out of range.

A fresh network would prove little: LayerNorm scales of one, tables of zeros and layer scales of
1e-6 hide whatever a pruner does to them, and weights of any size let activations grow or vanish.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torchvision.models import efficientnet, mnasnet, mobilenetv2, mobilenetv3, regnet, resnet
from torchvision.models.detection.roi_heads import RoIHeads

RESIDUAL_BLOCKS = (
    resnet.BasicBlock,
    resnet.Bottleneck,
    regnet.ResBottleneckBlock,
    mobilenetv2.InvertedResidual,
    mobilenetv3.InvertedResidual,
    mnasnet._InvertedResidual,
    efficientnet.MBConv,
    efficientnet.FusedMBConv,
)
BRANCH_GAIN = 0.3  # how far a residual branch's last BatchNorm is damped
TABLE_STD = 0.5  # of position tables, class tokens and the like
FAVOUR = 4.0  # logit of one class: a mask head works on what was found, also after pruning
LAYER_SCALE = 0.1  # scales below this are layer scales near zero


@torch.no_grad()
def randomise(model: nn.Module, inputs: Tensor, seed: int) -> None:
    """Give `model` random weights and BatchNorm statistics that keep activations in range.

    During one forward pass over `inputs` every layer is rescaled to unit output variance, and
    every BatchNorm takes the statistics of the batch, somewhat perturbed. Residual branches that
    end in BatchNorm are damped: undamped, deep random networks magnify rounding errors a
    thousandfold and more.
    """
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    layers = [m for m in model.modules() if isinstance(m, _ConvNd | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, generator=generator)
        if layer.bias is not None:
            layer.bias.normal_(0, 0.1, generator=generator)
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(0, 0.3, generator=generator)
    for norm in branch_ends(model):
        norm.weight.mul_(BRANCH_GAIN)
    done = {id(p) for module in (*layers, *norms) for p in (module.weight, module.bias)}
    for name, parameter in model.named_parameters():
        if id(parameter) not in done:
            _loosen(name.rpartition(".")[2], parameter, generator)
    hooks = [layer.register_forward_hook(_UnitVariance()) for layer in layers]
    hooks += [norm.register_forward_pre_hook(_BatchStatistics(generator)) for norm in norms]
    model(inputs)
    for hook in hooks:
        hook.remove()
    for heads in model.modules():
        if isinstance(heads, RoIHeads) and heads.has_mask():
            heads.box_predictor.cls_score.bias[1] += FAVOUR


class _BatchStatistics:
    """Forward pre-hook: give a BatchNorm, at its first call, nearly the statistics of its input."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._seen = False

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._seen:
            return
        self._seen = True
        assert isinstance(norm, _BatchNorm)
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            raise ValueError("a BatchNorm without running statistics")
        channels = inputs[0].transpose(0, 1).flatten(1)
        mean.copy_(channels.mean(1))
        var.copy_(channels.var(1, correction=0))
        var.clamp_(min=0.1 * float(var.mean()))
        mean.add_(0.1 * var.sqrt() * torch.randn(mean.shape, generator=self._generator))
        var.mul_(torch.empty_like(var).uniform_(0.8, 1.25, generator=self._generator))


class _UnitVariance:
    """Forward hook: rescale a layer, at its first call, to unit output variance on this batch."""

    def __init__(self) -> None:
        self._seen = False

    def __call__(self, layer: nn.Module, _: object, output: Tensor) -> Tensor:
        if self._seen:
            return output
        self._seen = True
        spread = float(output.std())
        scale = 1 / spread if spread > 0 else 1.0  # what is constant, or a single number, stays
        for parameter in layer.parameters(recurse=False):
            parameter.mul_(scale)
        return output * scale


def _loosen(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Give a parameter of neither a layer nor a BatchNorm values that differ and matter."""
    first = float(parameter.flatten()[0]) if parameter.numel() else 0.0
    if bool((parameter == first).all()):
        noise = torch.randn(parameter.shape, generator=generator)
        factor = torch.empty(parameter.shape).uniform_(0.5, 1.5, generator=generator)
        if first == 0:
            parameter.copy_(TABLE_STD * noise if parameter.ndim > 1 else 0.3 * noise)
        else:
            gain = BRANCH_GAIN if abs(first) < LAYER_SCALE else first
            parameter.copy_(gain * factor)
    elif parameter.ndim > 1 and "weight" in name:  # multiplies, as a layer's own weight does
        parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    elif parameter.ndim > 1:
        parameter.mul_(max(1.0, TABLE_STD / float(parameter.std())))


def branch_ends(model: nn.Module) -> list[_BatchNorm]:
    """The last BatchNorm of every residual branch of torchvision's, projection shortcuts aside."""
    ends = []
    for block in model.modules():
        adds = getattr(block, "use_res_connect", getattr(block, "apply_residual", True))
        if isinstance(block, RESIDUAL_BLOCKS) and adds:
            branch = [m for name, m in block.named_modules() if not name.startswith("downsample")]
            ends.append([m for m in branch if isinstance(m, _BatchNorm)][-1])
    return ends

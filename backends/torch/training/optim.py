"""Optimisers by recipe."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from irprune.recipe import Optimizer


def make_optimizer(how: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser that a recipe names; its learning rate is set step by step."""
    trained = [p for p in parameters if p.requires_grad]
    beta1, beta2 = how.betas
    match how.name:
        case "sgd":
            return torch.optim.SGD(
                trained,
                lr=how.lr,
                momentum=how.momentum,
                nesterov=how.nesterov,
                weight_decay=how.weight_decay,
            )
        case "nadam":
            return torch.optim.NAdam(
                trained,
                lr=how.lr,
                betas=(beta1, beta2),
                eps=how.eps,
                weight_decay=how.weight_decay,
                foreach=True,
            )
        case "adamw":
            return torch.optim.AdamW(
                trained,
                lr=how.lr,
                betas=(beta1, beta2),
                eps=how.eps,
                weight_decay=how.weight_decay,
            )

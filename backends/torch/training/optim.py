"""Optimisers by recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from irprune.errors import IrpruneError
from irprune.multipliers import Multipliers
from irprune.recipe import Optimizer


def make_optimizer(
    how: Optimizer,
    parameters: Iterable[nn.Parameter],
    multipliers: Mapping[nn.Parameter, Multipliers] = MappingProxyType({}),
) -> torch.optim.Optimizer:
    """Return the optimiser that a recipe names; its learning rates are set step by step.

    Args:
        multipliers: of those parameters that have any; one group of parameters is made for each.

    Raises:
        IrpruneError: there is nothing to train.
    """
    groups: dict[Multipliers, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.requires_grad:
            factors = multipliers.get(parameter, Multipliers())
            groups.setdefault(factors, []).append(parameter)
    trained = [
        {"params": held, "lr": how.lr * by.lr, "weight_decay": how.weight_decay * by.decay}
        for by, held in groups.items()
    ]
    if not trained:
        reason = "the network has no weights to train, or all are frozen"
        raise IrpruneError(reason, mend="give it floating-point weights that require gradients")
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
        case "adagrad":
            return torch.optim.Adagrad(
                trained, lr=how.lr, eps=how.eps, weight_decay=how.weight_decay
            )
        case "rmsprop":
            return torch.optim.RMSprop(
                trained, lr=how.lr, alpha=beta2, eps=how.eps, weight_decay=how.weight_decay
            )
        case "adadelta":
            return torch.optim.Adadelta(
                trained, lr=how.lr, rho=beta2, eps=how.eps, weight_decay=how.weight_decay
            )
        case "adam" | "adamw":
            kind = torch.optim.Adam if how.name == "adam" else torch.optim.AdamW
            return kind(
                trained,
                lr=how.lr,
                betas=(beta1, beta2),
                eps=how.eps,
                weight_decay=how.weight_decay,
            )

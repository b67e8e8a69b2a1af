"""Optimisers by recipe."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from irprune.errors import IrpruneError
from irprune.recipe import Optimizer


def make_optimizer(how: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser that a recipe names; its learning rate is set step by step.

    Raises:
        IrpruneError: there is nothing to train.
    """
    trained = [p for p in parameters if p.requires_grad]
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

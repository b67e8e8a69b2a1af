"""Optimisers: one group of parameters for each pair of multipliers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from irprune.backends.torch.training.optim import make_optimizer
from irprune.errors import IrpruneError
from irprune.multipliers import Multipliers
from irprune.recipe import Optimizer

NAMES = ("sgd", "nadam", "adamw", "adam", "adagrad", "rmsprop", "adadelta")


@pytest.mark.parametrize("name", NAMES)
def test_weights_learn_by_their_multipliers(name: str) -> None:
    """As by an optimiser of their own, with that rate and that decay."""
    how = Optimizer(name, lr=0.1, weight_decay=0.01)  # type: ignore[arg-type]
    own = Optimizer(name, lr=0.2, weight_decay=0.03)  # type: ignore[arg-type]
    plain, fast, alone = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(3))
    both = make_optimizer(how, [plain, fast], {fast: Multipliers(lr=2, decay=3)})
    single = make_optimizer(own, [alone])
    for parameter in (plain, fast, alone):
        parameter.grad = torch.tensor([0.5, 0.25])
    both.step()
    single.step()
    assert torch.allclose(fast, alone) and not torch.allclose(fast, plain)


def test_equal_weights_are_one_group_and_frozen_ones_none() -> None:
    one, two, still = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    still.requires_grad_(False)
    (group,) = make_optimizer(Optimizer(), [one, two, still]).param_groups
    assert group["params"] == [one, two]
    with pytest.raises(IrpruneError, match="all are frozen"):
        make_optimizer(Optimizer(), [still])

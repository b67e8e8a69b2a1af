"""Gradients of batches that do not fit into memory at once."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from irprune.backends.torch.training.objective import Gradients, Objective
from irprune.errors import IrpruneError
from irprune.recipe import Recipe


class _Small(nn.Module):
    """A network with a BatchNorm of whole examples, for which memory holds `room` of them."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.norm, self.room, self.seen = nn.BatchNorm1d(4), room, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(len(x))
        out: Tensor = self.norm(x)
        return out


def step(count: int, room: int) -> list[int]:
    """Return the sizes of the parts that a batch is taken in."""
    module = _Small(room)
    objective = Objective(Recipe(epochs=1), None, 4)
    gradients = Gradients(Fabric(accelerator="cpu"), module, objective, print, None)
    y = torch.arange(count) % 4
    gradients.of(torch.eye(4)[y], y, count)
    return module.seen


@pytest.mark.parametrize(
    ("count", "room", "sizes"),
    [(10, 10, [10]), (10, 4, [3, 3, 2, 2]), (13, 4, [4, 3, 3, 3]), (6, 2, [2, 2, 2])],
)
def test_parts_are_even(count: int, room: int, sizes: list[int]) -> None:
    """Cut off by threes, 10 would leave an example alone, of which BatchNorm takes no variance."""
    assert step(count, room) == sizes


@pytest.mark.parametrize(
    ("count", "room", "mend"),
    [
        (1, 4, "raise train.batch"),
        (5, 2, "take a smaller network or input: memory holds 2 examples at a time"),
        (4, 1, "take a smaller network or input: memory holds 1 examples at a time"),
    ],
)
def test_the_mend_of_a_lonely_example_needs_no_more_memory(
    count: int, room: int, mend: str
) -> None:
    with pytest.raises(IrpruneError, match=f"one example at a time, .*; {mend}$"):
        step(count, room)

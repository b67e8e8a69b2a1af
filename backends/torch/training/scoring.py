"""Accuracy and loss on the test split, in as many parts as memory asks for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from irprune.backends.torch.training.data import Data, Draw
from irprune.backends.torch.training.layout import laid
from irprune.backends.torch.training.memory import halved, is_out_of_memory
from irprune.backends.torch.training.objective import logits_of
from irprune.recipe import Machine
from irprune.training import Score

_BATCH = 500


class Scoring:
    """Scores modules in eval mode.

    Where a batch does not fit into memory it is split in halves until it does, also later on.
    """

    def __init__(
        self, data: Data, fabric: Fabric, machine: Machine, log: Callable[[str], None]
    ) -> None:
        self._data, self._fabric, self._machine, self._log = data, fabric, machine, log
        self._micro = _BATCH

    def of(self, module: nn.Module) -> Score:
        """Return accuracy and loss (IrpruneError: not even one example fits into memory)."""
        training = module.training
        module.eval()
        device = self._fabric.device
        sums = torch.zeros(2, device=device, dtype=torch.float64)
        with torch.no_grad():
            for x, y in self._data.batches("test", self._draws(), device):
                logits = self._logits(module, x)
                sums[0] += (logits.argmax(1) == y).sum()
                sums[1] += functional.cross_entropy(logits, y, reduction="sum")
        module.train(training)
        total = cast(Tensor, self._fabric.all_reduce(sums, reduce_op="sum"))
        right, loss = (total / self._data.size("test")).tolist()
        return Score(right, loss)

    def _draws(self) -> list[Draw]:
        """This process's share of all batches; the last takes in a rest too small to be shared."""
        size, world = self._data.size("test"), self._fabric.world_size
        bounds = [*range(0, size, _BATCH), size]
        if len(bounds) > 2 and size - bounds[-2] < world:
            del bounds[-2]
        rank = self._fabric.global_rank
        return [Draw(np.arange(start, end)[rank::world]) for start, end in pairwise(bounds)]

    def _logits(self, module: nn.Module, x: Tensor) -> Tensor:
        while True:
            try:
                parts = [laid(part, self._machine) for part in torch.split(x, self._micro)]
                found = [logits_of(module(part), self._data.classes) for part in parts]
                return torch.cat(found).float()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(min(self._micro, len(x)), error)

    def _halve(self, size: int, error: RuntimeError) -> None:
        self._micro = halved(size, self._fabric.world_size, "test on one device", error)
        self._log(
            f"test: {size} examples do not fit into memory; going on with {self._micro} at a time"
        )

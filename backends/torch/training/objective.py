"""The loss of a batch, and its gradient in as many parts as memory asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from irprune.errors import IrpruneError
from irprune.recipe import Distillation, Recipe


def logits_of(output: Any) -> Tensor:
    """Return the first tensor of what a network returns: the logits ``(n, classes)``."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output


class Objective:
    """Cross-entropy, mixed with distillation from a teacher where the recipe says so."""

    def __init__(self, recipe: Recipe, teacher: nn.Module | None) -> None:
        how: Distillation = recipe.distillation
        if how.weight and teacher is None:
            raise IrpruneError("distillation needs a teacher")
        self._smoothing = recipe.label_smoothing
        self._weight, self._temperature = how.weight, how.temperature
        self._teacher = teacher if how.weight else None

    def __call__(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the losses of some examples, a scalar."""
        logits = logits.float()
        loss = functional.cross_entropy(logits, y, reduction="sum", label_smoothing=self._smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            wanted = logits_of(self._teacher(x)).float() / self._temperature
        distance = functional.kl_div(
            functional.log_softmax(logits / self._temperature, dim=1),
            functional.log_softmax(wanted, dim=1),
            reduction="sum",
            log_target=True,
        )
        return (1 - self._weight) * loss + self._weight * self._temperature**2 * distance


class Gradients:
    """Leaves the gradient of a batch's mean loss in the parameters.

    Where the batch does not fit into memory it is split in halves until it does, and the gradients
    are added up: the same gradient, but BatchNorm sees the parts.
    """

    def __init__(
        self,
        fabric: Fabric,
        module: nn.Module,
        objective: Objective,
        log: Callable[[str], None],
        micro: int | None,
    ) -> None:
        self._fabric = fabric
        self._module = module
        self._objective = objective
        self._log = log
        self.micro = micro

    def of(self, x: Tensor, y: Tensor, total: int) -> Tensor:
        """Return this process's share of the mean loss over ``total`` examples of all processes."""
        while True:
            try:
                return self._parts(x, y, total)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(min(self.micro or len(x), len(x)), error)

    def _parts(self, x: Tensor, y: Tensor, total: int) -> Tensor:
        """DDP averages over the processes, hence the factor of their number."""
        size = self.micro or len(x)
        parts = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
        whole = torch.zeros((), device=x.device)
        for number, (xs, ys) in enumerate(parts):
            with self._alone(number < len(parts) - 1):
                loss = self._objective(logits_of(self._module(xs)), xs, ys) / total
                self._fabric.backward(loss * self._fabric.world_size)
            whole += loss.detach()
        return whole

    def _alone(self, wanted: bool) -> Any:
        """A context in which processes do not yet exchange gradients."""
        if not wanted or self._fabric.world_size == 1:
            return nullcontext()
        return self._fabric.no_backward_sync(self._module)  # type: ignore[arg-type]

    def _halve(self, size: int, error: RuntimeError) -> None:
        for parameter in self._module.parameters():
            parameter.grad = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if size == 1 or self._fabric.world_size > 1:
            reason = (
                "not even one example fits into memory"
                if size == 1
                else "the batch does not fit into the memory of a device"
            )
            mend = "take a smaller network or input" if size == 1 else "lower train.batch"
            raise IrpruneError(reason, mend=mend) from error
        self.micro = -(-size // 2)
        self._log(
            f"train: {size} examples do not fit into memory; going on with {self.micro} at a time, "
            f"gradients added up (BatchNorm sees {self.micro})"
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)

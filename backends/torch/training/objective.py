"""The loss of a batch, and its gradient in as many parts as memory asks for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from irprune.backends.torch.training.memory import halved, is_out_of_memory
from irprune.errors import IrpruneError
from irprune.recipe import Distillation, Recipe

_LONELY = "Expected more than 1 value per channel"
"""What torch says of a BatchNorm in training that has one number to take a variance of."""


def logits_of(output: Any, classes: int) -> Tensor:
    """Return the first tensor of what a network returns: the logits ``(n, classes or more)``.

    Raises:
        IrpruneError: it is something else.
    """
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    if output.ndim != 2 or output.shape[1] < classes or not output.is_floating_point():
        found = f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"
        reason = f"the first output is {found}, the labels have {classes} classes"
        raise IrpruneError(reason, mend="end the model with (n, classes) logits")
    return output


class Objective:
    """Cross-entropy, mixed with distillation from a teacher where the recipe says so.

    Teacher and student are compared in the outputs that both have.
    """

    def __init__(self, recipe: Recipe, teacher: nn.Module | None, classes: int) -> None:
        how: Distillation = recipe.distillation
        if how.weight and teacher is None:
            raise IrpruneError("distillation needs a teacher")
        self._smoothing = recipe.label_smoothing
        self._weight, self._temperature = how.weight, how.temperature
        self._teacher = teacher if how.weight else None
        self._classes = classes

    def __call__(self, output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of the losses of some examples, a scalar, from what the network returns.

        Raises:
            IrpruneError: these are no logits.
        """
        logits = logits_of(output, self._classes).float()
        loss = functional.cross_entropy(logits, y, reduction="sum", label_smoothing=self._smoothing)
        if self._teacher is None:
            return loss
        with torch.no_grad():
            wanted = logits_of(self._teacher(x), self._classes).float()
        shared = min(logits.shape[1], wanted.shape[1])
        mine, theirs = (each[:, :shared] / self._temperature for each in (logits, wanted))
        distance = functional.kl_div(
            functional.log_softmax(mine, dim=1),
            functional.log_softmax(theirs, dim=1),
            reduction="sum",
            log_target=True,
        )
        return (1 - self._weight) * loss + self._weight * self._temperature**2 * distance


class Gradients:
    """Leaves the gradient of a batch's mean loss in the parameters.

    Where the batch does not fit into memory it is split until it does, into parts that are as even
    as can be, and the gradients are added up: the same gradient, but BatchNorm sees the parts.
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
        """Return this process's share of the mean loss over ``total`` examples of all processes.

        Raises:
            IrpruneError: not even one example fits into memory, or a BatchNorm sees only one.
        """
        while True:
            try:
                return self._parts(x, y, total)
            except ValueError as error:
                if _LONELY not in str(error):
                    raise
                reason = "a BatchNorm sees one example at a time, which has no variance"
                raise IrpruneError(reason, mend=self._company()) from error
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(min(self.micro or len(x), len(x)), error)

    def _parts(self, x: Tensor, y: Tensor, total: int) -> Tensor:
        """DDP averages over the processes, hence the factor of their number."""
        count = -(-len(x) // self.micro) if self.micro else 1
        parts = zip(x.tensor_split(count), y.tensor_split(count), strict=True)
        whole = torch.zeros((), device=x.device)
        for number, (xs, ys) in enumerate(parts):
            with self._alone(number < count - 1):
                loss = self._objective(self._module(xs), xs, ys) / total
                self._fabric.backward(loss * self._fabric.world_size)
            whole += loss.detach()
        return whole

    def _alone(self, wanted: bool) -> Any:
        """A context in which processes do not yet exchange gradients."""
        if not wanted or self._fabric.world_size == 1:
            return nullcontext()
        return self._fabric.no_backward_sync(self._module)  # type: ignore[arg-type]

    def _company(self) -> str:
        """What gives an example company."""
        if self.micro is None:
            return "raise train.batch"
        return f"take a smaller network or input: memory holds {self.micro} examples at a time"

    def _halve(self, size: int, error: RuntimeError) -> None:
        for parameter in self._module.parameters():
            parameter.grad = None
        self.micro = halved(size, self._fabric.world_size, "lower train.batch", error)
        self._log(
            f"train: {size} examples do not fit into memory; going on with {self.micro} at a time, "
            f"gradients added up (BatchNorm sees {self.micro})"
        )

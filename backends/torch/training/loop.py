"""The training loop: epochs of a recipe on a data set, resumed exactly after a kill."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from tqdm import tqdm

from irprune.atomic import make_folder
from irprune.backends.torch.training import checkpoint
from irprune.backends.torch.training.checkpoint import Progress
from irprune.backends.torch.training.data import Data, Draw
from irprune.backends.torch.training.layout import laid, lay_out
from irprune.backends.torch.training.log import TrainingLog
from irprune.backends.torch.training.memory import memory_for
from irprune.backends.torch.training.objective import Gradients, Objective
from irprune.backends.torch.training.optim import make_optimizer
from irprune.backends.torch.training.repeatable import repeatable
from irprune.backends.torch.training.scoring import Scoring
from irprune.errors import IrpruneError
from irprune.launch import check_processes
from irprune.multipliers import Multipliers
from irprune.recipe import Machine, Recipe
from irprune.training import Diverged

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Job:
    """What to train, on what, how, and where to keep what is needed to go on after a kill."""

    module: nn.Module
    data: Data
    recipe: Recipe
    folder: Path
    machine: Machine = Machine()
    first: int = 0
    """The epoch to start from: order, augmentation and learning rate are that epoch's."""
    last: int | None = None
    teacher: nn.Module | None = None
    after_epoch: Callable[[int], None] | None = None
    """Called in the first process with the number of epochs done, before the checkpoint of it."""
    log: Callable[[str], None] = lambda message: None
    least: int = 0
    """Epochs that are done even where the target is reached before."""
    multipliers: Mapping[str, Multipliers] = field(default_factory=dict)
    """Of parameters by name; what does not require gradients is frozen in any case."""


def fabric_of(machine: Machine) -> Fabric:
    """Return the engine; IrpruneError where accelerator or processes are not what it asks for."""
    # Fabric itself would start the command anew for each device, whatever the command is.
    check_processes(machine)
    if machine.accelerator == "cuda" and not torch.cuda.is_available():
        raise IrpruneError("this machine has no CUDA device", mend="set accelerator = auto or cpu")
    fabric = Fabric(
        accelerator=machine.accelerator,
        devices=machine.devices,
        strategy=machine.strategy,
        precision=machine.precision,
    )
    if fabric.world_size > 1:
        fabric.launch()
    return fabric


def batches_of(size: int, batch: int, processes: int = 1) -> list[tuple[int, int]]:
    """Return where batches start and end.

    A last one that leaves a process a single example, of which BatchNorm takes no variance, is
    left out (IrpruneError: every batch leaves one without any).
    """
    if min(size, batch) < processes:
        reason = f"batches of {min(size, batch)} do not reach {processes} processes"
        raise IrpruneError(reason, mend="raise train.batch, or lower machine.devices")
    parts = [(start, min(start + batch, size)) for start in range(0, size, batch)]
    short = parts[-1][1] - parts[-1][0] < 2 * processes
    return parts[:-1] if len(parts) > 1 and short else parts


def train(job: Job) -> list[dict[str, float]]:
    """Train the module in place; return one row per epoch since `first`.

    With the same job in the same folder a killed run goes on where its last checkpoint stands, and
    computes what it would have computed.

    Raises:
        Diverged: the loss is NaN or infinite.
        IrpruneError: memory, checkpoint or accelerator do not allow it, or there is nothing to
            train.
    """
    mend = "lower train.batch, or take a smaller network"
    fabric = fabric_of(job.machine)
    with torch.random.fork_rng(), memory_for("training", mend), repeatable(job.machine, fabric):
        loop = _Loop(job, fabric)
        try:
            return loop.run()
        finally:
            loop.log.close()


class _Loop:
    def __init__(self, job: Job, fabric: Fabric) -> None:
        self.job, self.fabric, self.recipe = job, fabric, job.recipe
        make_folder(job.folder)
        self.path = job.folder / CHECKPOINT
        self.parts = batches_of(job.data.size("train"), job.recipe.batch, fabric.world_size)
        self.last = job.recipe.epochs if job.last is None else job.last
        self.length = _length(job.recipe, len(self.parts))
        module = job.module
        self.identity = identity_of(job)
        found = checkpoint.load(self.path, self.identity)
        if found is not None:
            module.load_state_dict(found[0])
        lay_out(module, job.machine)
        own = {p: job.multipliers[n] for n, p in module.named_parameters() if n in job.multipliers}
        optimizer = make_optimizer(job.recipe.optimizer, module.parameters(), own)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        runs = torch.compile(module) if job.machine.compile else module
        self.module, self.optimizer = fabric.setup(cast(nn.Module, runs), optimizer)
        self.progress = Progress(epoch=job.first)
        if found is not None:
            self.optimizer.load_state_dict(found[1])
            self.progress = found[2]
        teacher = job.teacher
        if teacher is not None:
            teacher = fabric.setup_module(teacher.eval().requires_grad_(False))
        objective = Objective(job.recipe, teacher, job.data.classes)
        self.gradients = Gradients(fabric, self.module, objective, job.log, self.progress.micro)
        self.scoring = Scoring(job.data, fabric, job.machine, job.log)
        self.log = TrainingLog(
            job.folder, self._step, job.machine.tensorboard and fabric.is_global_zero
        )
        self.saved = time.monotonic()
        self.share = 1.0

    @property
    def _step(self) -> int:
        """Steps done since the start of the recipe, whose last epoch may be cut short."""
        return min(self.progress.epoch * len(self.parts) + self.progress.batch, self.length)

    @property
    def _batches_now(self) -> int:
        """Batches of the epoch that is under way."""
        before = self.progress.epoch * len(self.parts)
        return min(len(self.parts), self.length - before)

    def run(self) -> list[dict[str, float]]:
        while self.progress.epoch < self.last and not self._reached():
            self._epoch()
        return self.progress.history

    def _reached(self) -> bool:
        target, history = self.recipe.target, self.progress.history
        if target is None or not history or self.progress.epoch < self.job.least:
            return False
        return bool(history[-1]["accuracy"] >= target)

    def _epoch(self) -> None:
        progress = self.progress
        self.module.train()
        before = progress.loss if self.fabric.is_global_zero else 0.0
        running = torch.tensor(before, device=self.fabric.device)
        bar = tqdm(
            total=self._batches_now,
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}/{self.last}",
            leave=False,
            disable=None if self.fabric.is_global_zero else True,
        )
        with bar:
            for start, end, x, y in self._batches():
                running += self._update(x, y, end - start)
                progress.batch += 1
                bar.update()
                if self._step % self.job.machine.log_steps == 0:
                    progress.loss = self._checked(running)
                    loss = progress.loss / progress.batch
                    bar.set_postfix(loss=f"{loss:.4f}")
                    self._tell(train_loss=loss, lr=self.recipe.optimizer.lr * self.share)
                if self._due():
                    progress.loss = self._checked(running)
                    self._save()
        loss = self._checked(running) / self._batches_now
        self._finish_epoch(loss)

    def _batches(self) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
        """Yield bounds and this process's examples of the batches yet to do in the epoch."""
        epoch, recipe, fabric = self.progress.epoch, self.recipe, self.fabric
        random = np.random.default_rng((recipe.seed, epoch))
        order = random.permutation(self.job.data.size("train"))
        parts = self.parts[self.progress.batch : self._batches_now]
        first = self._step
        draws = [
            Draw(
                order[start:end][fabric.global_rank :: fabric.world_size],
                seed_of(recipe, first + i, fabric.global_rank),
            )
            for i, (start, end) in enumerate(parts)
        ]
        found = self.job.data.batches("train", draws, fabric.device)
        for (start, end), (x, y) in zip(parts, found, strict=True):
            yield start, end, laid(x, self.job.machine), y

    def _update(self, x: torch.Tensor, y: torch.Tensor, total: int) -> torch.Tensor:
        """Take one optimiser step; return the mean loss of the batch, a scalar."""
        recipe = self.recipe
        # Dropout draws by step and process: nothing random has a state to be saved.
        torch.manual_seed(seed_of(recipe, self._step, self.fabric.global_rank))
        each = len(self.parts)
        self.share = recipe.schedule.share(self._step, each, self.length / each)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.share
        loss = self.gradients.of(x, y, total)
        if recipe.clip is not None:
            self.fabric.clip_gradients(
                self.module,
                self.optimizer,
                max_norm=recipe.clip,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _checked(self, running: torch.Tensor) -> float:
        """Return the sum of losses as a number (Diverged unless it is one)."""
        total = float(cast(torch.Tensor, self.fabric.all_reduce(running.clone(), reduce_op="sum")))
        weights = [torch.isfinite(p).all() for p in self.job.module.parameters()]
        if not (np.isfinite(total) and torch.stack(weights).all()):
            kept = f"; {self.path} is the last good one" if self.path.is_file() else ""
            raise Diverged(
                f"the loss is not finite after step {self._step} "
                f"(epoch {self.progress.epoch + 1}){kept}",
                file=self.job.folder,
                mend="lower the learning rate, warm up, or clip gradients",
            )
        return total

    def _due(self) -> bool:
        machine = self.job.machine
        every, minutes = machine.checkpoint_steps, machine.checkpoint_minutes
        if self.progress.batch == self._batches_now:
            return False  # the epoch's own checkpoint follows
        if every is not None and self._step % every == 0:
            return True
        if minutes is None:
            return False
        due = time.monotonic() - self.saved >= 60 * minutes
        if self.fabric.world_size == 1:
            return due
        # Processes do not share a clock: the first one's decides, where they wait for each other.
        return self._step % machine.log_steps == 0 and bool(self.fabric.broadcast(due))

    def _finish_epoch(self, loss: float) -> None:
        score = self.scoring.of(self.module)
        if not np.isfinite(score.loss):
            self._checked(torch.tensor(float("nan"), device=self.fabric.device))
        progress = self.progress
        row = {
            "epoch": progress.epoch + 1,
            "train_loss": loss,
            "loss": score.loss,
            "accuracy": score.accuracy,
        }
        self.progress = Progress(
            progress.epoch + 1, micro=self.gradients.micro, history=[*progress.history, row]
        )
        self._tell(**row)
        if self.fabric.is_global_zero and self.job.after_epoch is not None:
            self.job.after_epoch(self.progress.epoch)
        self._save()

    def _save(self) -> None:
        self.progress.micro = self.gradients.micro
        if self.fabric.is_global_zero:
            module, optimizer = self.job.module.state_dict(), self.optimizer.state_dict()
            checkpoint.save(self.path, self.identity, module, optimizer, self.progress)
        self.fabric.barrier()
        self.saved = time.monotonic()

    def _tell(self, **numbers: float) -> None:
        if self.fabric.is_global_zero:
            self.log.add(self._step, **numbers)


def _length(recipe: Recipe, each: int) -> int:
    """Return the optimiser steps of a recipe, at so many per epoch (IrpruneError: no such)."""
    if recipe.steps is None:
        return recipe.epochs * each
    epochs = -(-recipe.steps // each)
    if epochs != recipe.epochs:
        reason = f"{recipe.steps} steps end in epoch {epochs}, at {each} each, not {recipe.epochs}"
        raise IrpruneError(reason, mend=f"set epochs = {epochs}")
    return recipe.steps


def seed_of(recipe: Recipe, step: int, process: int = 0) -> int:
    """Return the seed of a step in a process.

    Recipe, step and process are mixed into the lower half, which is all that torch draws by on a
    CPU.
    """
    sequence = np.random.SeedSequence((recipe.seed, process, step))
    return int(sequence.generate_state(1, np.uint64)[0])


def identity_of(job: Job) -> str:
    """What a checkpoint must have been made by: the recipe, the start, the network's shapes.

    Several processes may leave a batch out that one takes: there, the batches of an epoch as well.
    """
    shapes = [(name, tuple(t.shape)) for name, t in job.module.state_dict().items()]
    size, devices = job.data.size("train"), job.machine.devices
    made_by: list[object] = [job.recipe, job.first, size, shapes]
    if job.multipliers:
        made_by.append(sorted(job.multipliers.items()))
    if devices > 1:
        made_by.append(len(batches_of(size, job.recipe.batch, devices)))
    return hashlib.sha256(repr(tuple(made_by)).encode()).hexdigest()

"""How a network is trained, as plain data: optimiser, learning rate, budget, machine."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from math import cos, floor, pi, tanh
from typing import Any, Literal

from irprune.errors import IrpruneError
from irprune.ranges import check_range

Policy = Literal[
    "constant", "fixed", "step", "multistep", "cosine", "exp", "inv", "poly", "sigmoid"
]
Unit = Literal["epochs", "steps"]
SEEDS = 2**32
"""Seeds lie below this."""


@dataclass(frozen=True)
class Optimizer:
    """The update rule. Weight decay is added to the gradient, except in `adamw`.

    `momentum` and `nesterov` are of `sgd`. `betas` say how much averages remember, of gradients
    and of their squares; `rmsprop` and `adadelta` use the second.
    """

    name: Literal["sgd", "nadam", "adamw", "adam", "adagrad", "rmsprop", "adadelta"] = "sgd"
    lr: float = 0.1
    weight_decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "lr", "weight_decay", "momentum", "eps")
        check_range(self, "[0, 1)", "betas")
        if len(self.betas) != 2:
            raise IrpruneError("betas are two numbers")
        if self.name != "sgd" and (self.momentum or self.nesterov):
            mend = "choose sgd, or say what the optimiser remembers by betas"
            raise IrpruneError(f"{self.name} has no momentum or nesterov", mend=mend)
        if self.nesterov and self.momentum == 0:
            raise IrpruneError("nesterov = true needs a momentum")


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a share of the optimiser's, a function of time alone.

    Time t counts `unit`s from the start of training, T is the whole of it:
    `constant` (Caffe: `fixed`) 1; `step` gamma^⌊t/every⌋; `multistep` gamma^|{m in at: m ≤ t}|;
    `exp` gamma^t; `inv` (1 + gamma t)^-power; `poly` (1 - t/T)^power; `sigmoid`
    1 / (1 + e^(-gamma (t - every))): Caffe's policies, its `stepsize` being `every` and its
    `stepvalue` `at`. `cosine` falls from 1 to `least` over what the warm-up leaves of T.
    While t < warmup the share is t/warmup.
    """

    policy: Policy = "constant"
    unit: Unit = "epochs"
    gamma: float = 0.1
    power: float = 1.0
    every: float = 0.0
    at: tuple[float, ...] = ()
    least: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "(-inf, inf)", "gamma", "power", "every", "at")
        check_range(self, "[0, inf)", "least", "warmup")
        if self.policy != "sigmoid":
            check_range(self, "[0, inf)", "gamma")
        if self.policy == "poly":
            check_range(self, "[0, inf)", "power")
        if self.policy in ("step", "sigmoid") and self.every <= 0:
            raise IrpruneError(f"policy {self.policy} needs `every`, a positive number")
        if self.policy == "multistep" and not self.at:
            raise IrpruneError("policy multistep needs `at`, a list of times")
        if list(self.at) != sorted(self.at):
            raise IrpruneError("`at` must ascend")

    def share(self, step: int, steps_per_epoch: int, epochs: float) -> float:
        """Return the share of the learning rate that holds for a step, counted from 0.

        Infinite where it is too large a number: training then stops, as it does for any NaN.
        """
        per = 1 if self.unit == "steps" else steps_per_epoch
        exact, total = Fraction(step, per), epochs * steps_per_epoch / per
        if (t := float(exact)) < self.warmup:
            return t / self.warmup
        try:
            return self._at(exact, total)
        except OverflowError:
            return float("inf")

    def _at(self, exact: Fraction, total: float) -> float:
        t = float(exact)
        match self.policy:
            case "constant" | "fixed":
                return 1.0
            case "step":  # of 0.3 / 0.1 as they are written: the floats' quotient is below 3
                return float(self.gamma ** floor(exact / Fraction(str(self.every))))
            case "multistep":
                return float(self.gamma ** bisect_right(self.at, t))
            case "exp":
                return float(self.gamma**t)
            case "inv":
                return float((1 + self.gamma * t) ** -self.power)
            case "poly":
                return float(max(0.0, 1 - t / total) ** self.power)
            case "sigmoid":
                return (1 + tanh(self.gamma * (t - self.every) / 2)) / 2
            case "cosine":
                past = min(1.0, (t - self.warmup) / max(total - self.warmup, 1e-12))
                return self.least + (1 - self.least) * (1 + cos(pi * past)) / 2


@dataclass(frozen=True)
class Distillation:
    """Hinton et al. 2015: (1 - weight) CE(labels) + weight T² KL(teacher/T, student/T)."""

    weight: float = 0.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_range(self, "[0, 1]", "weight")
        check_range(self, "(0, inf)", "temperature")


@dataclass(frozen=True)
class Recipe:
    """What decides the weights that training ends with."""

    epochs: int
    batch: int = 128
    seed: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    distillation: Distillation = field(default_factory=Distillation)
    label_smoothing: float = 0.0
    clip: float | None = None
    """Largest norm of all gradients together."""
    target: float | None = None
    """Stop after the first epoch whose test accuracy, in [0, 1], reaches this."""
    steps: int | None = None
    """Optimiser steps in all, where that is no whole number of epochs: the last is cut short."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "epochs", "batch", "steps")
        check_range(self, f"[0, {SEEDS})", "seed")
        check_range(self, "(0, inf)", "clip")
        check_range(self, "[0, 1]", "target")
        check_range(self, "[0, 1)", "label_smoothing")


@dataclass(frozen=True)
class Machine:
    """Where and how training runs.

    Results differ by rounding, and by what several processes do: each sees its own part of a batch
    in BatchNorm; a last batch that leaves one a single example is left out.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = True
    """Kernels of a GPU that give the same numbers every time: a resumed run is the same run."""
    checkpoint_steps: int | None = None
    """Write a checkpoint every so many steps, besides that of each epoch."""
    checkpoint_minutes: float | None = 10.0
    log_steps: int = 50
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "devices", "checkpoint_steps", "log_steps")
        check_range(self, "[0, inf)", "checkpoint_minutes")
        if self.strategy == "ddp" and self.devices == 1:
            mend = "set strategy = auto, or devices to the number of processes"
            raise IrpruneError("strategy = ddp needs several devices", mend=mend)

    def identity(self) -> dict[str, Any]:
        """What changes results by more than the order of additions."""
        return {"precision": self.precision, "devices": self.devices}

"""A small network, and a configuration that prunes it within a second or two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import irprune
from irprune import Model
from irprune.explore.iterate import iterate
from irprune.explore.iterate.config import (
    Config,
    Network,
    Objective,
    Pruning,
    Rewinding,
)
from irprune.explore.settings import DataSet
from irprune.recipe import Machine, Optimizer, Recipe

CONFIG = Config(
    model=Network("unused.onnx", "fresh"),
    data=DataSet("npz", "unused"),
    train=Recipe(epochs=3, batch=20, optimizer=Optimizer("nadam", lr=0.01)),
    rewind=Rewinding(2),
    prune=Pruning("iap", dense=(0.25,), conv=(0.25,), samples=30),
    objective=Objective(rounds=2),
    machine=Machine(accelerator="cpu"),
    latency=False,
)
ILP = replace(CONFIG, prune=replace(CONFIG.prune, method="ilp"))


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12),
        nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


def of(module: nn.Module) -> Model:
    return irprune.from_torch(module.eval(), (torch.zeros(2, 1, 6, 6),))


def run(folder: Path, model: Model, data: Path, config: Config = CONFIG, **more: Any) -> Any:
    return iterate(config, folder, model=model, data=data, **more)

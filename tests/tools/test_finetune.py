"""Fine-tuning of pruned ResNets: what a record tells of a training that was stopped."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

import irprune

FOLDER = Path(__file__).parents[2] / "tools" / "experiments"
LACKING = ("accuracy", "cifar_resnet", "train_speed", "zoo_export")
"""Tools that need what tests do without."""


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    for name in LACKING:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    monkeypatch.setattr(sys.modules["train_speed"], "hardware", lambda device: "a machine")
    monkeypatch.delitem(sys.modules, "finetune", raising=False)
    yield importlib.import_module("finetune")
    del sys.modules["finetune"]


@pytest.mark.parametrize("resumed", [False, True])
def test_seconds_are_those_of_the_whole_training(
    tmp_path: Path, finetune: Any, resumed: bool
) -> None:
    """Or none: those of the process that was killed went with it."""
    score = SimpleNamespace(accuracy=0.5)
    trainer = SimpleNamespace(
        score=lambda model: score, fit=lambda model, folder: SimpleNamespace(score=score)
    )
    if resumed:
        (tmp_path / "checkpoint.pt").touch()
    model = irprune.from_torch(nn.Linear(4, 3).eval(), (torch.zeros(2, 4),))
    record = finetune.tuned(lambda: model, tmp_path, trainer, 12)
    assert json.loads((tmp_path / "record.json").read_text()) == record
    assert (record["seconds"] is None) == resumed and record["share"] == 1

"""Two processes train as one: the same losses and weights, on the same whole batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from irprune.backends.torch.training.loop import fabric_of
from irprune.errors import IrpruneError
from irprune.recipe import Machine

SCRIPT = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, torch
from torch import nn
from irprune.backends.torch.training import checkpoint, loop
from irprune.backends.torch.training.data import ArrayData
from irprune.backends.torch.training.loop import Job, train
from irprune.recipe import Machine, Optimizer, Recipe

devices, folder, count, layer = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
minutes, saves, save = float(sys.argv[5]), [], checkpoint.save
def noting(path, identity, module, optimizer, progress):
    saves.append((progress.epoch, progress.batch))
    save(path, identity, module, optimizer, progress)

checkpoint.save = noting
if os.environ.get("RANK") == "1":
    loop.time = SimpleNamespace(monotonic=lambda: 0.0)  # a clock that stands still
random = np.random.default_rng(0)
x, y = random.normal(size=(75, 12)).astype(np.float32), random.integers(0, 3, 75)
class Told(ArrayData):
    seeds = []  # of augmentation, as this process asks for it

    def batches(self, split, draws, device):
        self.seeds += [draw.seed for draw in draws if split == "train"]
        return super().batches(split, draws, device)

data = Told(x[:count], y[:count], x[count:], y[count:])
torch.manual_seed(0)
middle = {"ReLU": nn.ReLU(), "BatchNorm1d": nn.BatchNorm1d(8)}[layer]
net = nn.Sequential(nn.Linear(12, 8), middle, nn.Linear(8, 3))
strategy = "ddp" if devices > 1 else "auto"
machine = Machine("cpu", devices, strategy, log_steps=2, checkpoint_minutes=minutes)
recipe = Recipe(epochs=2, batch=16, clip=0.5, optimizer=Optimizer("sgd", lr=0.3, momentum=0.9))
rows = train(Job(net, data, recipe, folder, machine))
rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
torch.save(Told.seeds, folder / f"seeds-{rank}.pt")
if rank == 0:
    end = {"rows": rows, "weights": net.state_dict(), "saves": saves}
    torch.save(end, folder / "end.pt")
"""


def _trained(
    folder: Path, devices: int, count: int = 53, layer: str = "ReLU", minutes: float = 10
) -> dict[str, object]:
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    arguments = [script, devices, folder, count, layer, minutes]
    command = [sys.executable, *(launcher if devices > 1 else []), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = torch.load(folder / "end.pt", weights_only=True)
    return found


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """53 examples in batches of 16: the last, of 5, is shared unequally and weighs no more."""
    one, two = _trained(tmp_path / "one", 1), _trained(tmp_path / "two", 2)
    for mine, theirs in zip(one["rows"], two["rows"], strict=True):  # type: ignore[call-overload]
        assert mine == pytest.approx(theirs, abs=1e-5)
    for name, tensor in one["weights"].items():  # type: ignore[attr-defined]
        assert torch.allclose(tensor, two["weights"][name], atol=1e-5)  # type: ignore[index]
    alone, first, second = (
        torch.load(tmp_path / name, weights_only=True)
        for name in ("one/seeds-0.pt", "two/seeds-0.pt", "two/seeds-1.pt")
    )
    assert first == alone
    assert len({*first, *second}) == len(first) + len(second)  # crops and flips are each their own


def test_a_last_batch_of_one_example_for_each_is_left_out(tmp_path: Path) -> None:
    """50 examples in batches of 16: the last, of 2, has no variance in either process."""
    rows = _trained(tmp_path / "two", 2, 50, "BatchNorm1d")["rows"]
    assert len(rows) == 2  # type: ignore[arg-type]


def test_the_first_process_s_clock_asks_for_checkpoints(tmp_path: Path) -> None:
    """Wherever the loss is looked at, which is every other of the four steps of an epoch."""
    assert _trained(tmp_path / "two", 2, minutes=0)["saves"] == [(0, 2), (1, 0), (1, 2), (2, 0)]


def test_devices_need_processes() -> None:
    with pytest.raises(IrpruneError, match="torchrun"):
        fabric_of(Machine("cpu", 2, "ddp"))

"""As many processes as devices, or the number and its option are named before any work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irprune.errors import IrpruneError
from irprune.launch import check_processes, leads
from irprune.recipe import Machine

CONFIG = """
[data]
name = "npz"
path = "data.npz"
[train]
epochs = 1
[machine]
accelerator = "cpu"
"""
NET = """input: "x" input_shape { dim: 1 dim: 6 }
layer { name: "y" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }"""


def launched(monkeypatch: pytest.MonkeyPatch, processes: int, rank: int = 0) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("RANK", str(rank))


@pytest.mark.parametrize(
    ("devices", "processes", "message"),
    [
        (2, 1, "devices = 2 .*there are 1; start with torchrun --nproc-per-node 2, .*devices = 1"),
        (2, 3, "devices = 2 .*there are 3; start with torchrun --nproc-per-node 2, .*devices = 3"),
        (1, 2, "devices = 1 .*there are 2; start without torchrun, or set devices = 2"),
    ],
)
def test_another_number_of_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch, devices: int, processes: int, message: str
) -> None:
    if processes > 1:
        launched(monkeypatch, processes)
    with pytest.raises(IrpruneError, match=f"^machine.devices: {message}"):
        check_processes(Machine("cpu", devices))
    launched(monkeypatch, devices)
    check_processes(Machine("cpu", devices))


def test_the_first_process_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leads(Machine())
    launched(monkeypatch, 2, rank=1)
    assert not leads(Machine("cpu", 2))


def test_no_process_of_too_many_begins(tmp_path: Path) -> None:
    x, y = np.zeros((9, 6), np.float32), np.arange(9) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "train.toml").write_text(CONFIG)
    (tmp_path / "net.prototxt").write_text(NET)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = ["irprune", "train", "train.toml", "net.prototxt", "-o", "out.onnx"]
    done = subprocess.run(
        [sys.executable, *launcher, *command], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode and not done.stdout
    assert "machine.devices: devices = 1 needs" in done.stderr
    assert "another process is at work" not in done.stderr
    assert not (tmp_path / "out.onnx.training").exists()

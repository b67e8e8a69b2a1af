"""Checkpoints and logs: what is damaged, and disks that do not take them."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from irprune.atomic import make_folder
from irprune.backends.torch.training import checkpoint
from irprune.backends.torch.training.checkpoint import Progress
from irprune.backends.torch.training.log import TrainingLog
from irprune.errors import IrpruneError

STATE = {"weight": torch.arange(3000.0)}


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """A disk on which no file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"garbage", "not a usable checkpoint;"),
        (b"", "not a usable checkpoint;"),
        ([1], "not a usable checkpoint;"),
        ({"format": 1}, "not a usable checkpoint;"),
        (
            {"format": 9, "identity": "", "module": {}, "optimizer": {}, "progress": {"epoch": 1}},
            "not a usable checkpoint: format 9;",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    """And nobody is told to execute what it holds."""
    path = tmp_path / "c.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(IrpruneError, match=f"c.pt: {message} remove it to start again") as raised:
        checkpoint.load(path, "id")
    assert "weights_only" not in str(raised.value)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_checkpoint_on_a_full_disk_is_named(tmp_path: Path, size: int) -> None:
    """The one from before stays, and nothing else."""
    path = tmp_path / "c.pt"
    checkpoint.save(path, "id", STATE, {}, Progress(1))
    before = path.read_bytes()
    with room_for(size), pytest.raises(IrpruneError, match="c.pt: cannot write: File too large"):
        checkpoint.save(path, "id", STATE, {}, Progress(2))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_a_log_on_a_full_disk_is_named(tmp_path: Path) -> None:
    """A row that was cut short is dropped when training goes on."""
    log = TrainingLog(tmp_path, 0, False)
    log.add(1, loss=0.5)
    whole = (tmp_path / "log.jsonl").read_text()
    with room_for(len(whole) + 5), pytest.raises(IrpruneError, match="log.jsonl: cannot write"):
        log.add(2, loss=0.25)
    TrainingLog(tmp_path, 2, False)
    assert (tmp_path / "log.jsonl").read_text() == whole


def test_a_log_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IrpruneError, match=r"log.jsonl: not a log: no UTF-8 text; remove it"):
        TrainingLog(tmp_path, 0, False)


def test_folders_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("")
    for folder in (tmp_path / "tensorboard", tmp_path / "tensorboard" / "below"):
        with pytest.raises(IrpruneError, match=f"{folder}: cannot make this folder"):
            make_folder(folder)
    with pytest.raises(IrpruneError, match="tensorboard: cannot write here"):
        TrainingLog(tmp_path, 0, True)

"""Checkpoints and logs: what is damaged, and disks that do not take them."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
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


def save(path: Path) -> tuple[dict[str, Any], dict[str, Any], Progress]:
    """Write a checkpoint with all that there may be in one; return what it holds."""
    weight = torch.arange(6.0).reshape(3, 2).T.bfloat16()
    module = {"weight": weight, "steps": torch.tensor(7), "none": torch.ones(0)}
    optimizer = {"state": {0: {"mean": torch.ones(2)}}, "groups": [{"betas": (0.9, 0.99)}]}
    content = module, optimizer, Progress(1, history=[{"loss": 0.1}])
    checkpoint.save(path, "id", *content)
    return content


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    wanted = save(tmp_path / "c.pt")
    assert repr(checkpoint.load(tmp_path / "c.pt", "id")) == repr(wanted)


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["module"]["weight"].view(torch.int16)[1, 2].add_(1),
        lambda c: c["module"].update(weighs=c["module"].pop("weight")),
        lambda c: c["module"].update(none=torch.ones(0, 1)),
        lambda c: c["optimizer"]["groups"][0].update(betas=(0.9, 0.98)),
        lambda c: c["progress"]["history"][0].update(loss=0.2),
        lambda c: c.update(has=c.pop("hash")),
    ],
)
def test_a_damaged_checkpoint_that_can_be_read_is_refused(
    tmp_path: Path, damage: Callable[[Any], Any]
) -> None:
    path = tmp_path / "c.pt"
    save(path)
    content = torch.load(path, weights_only=True)
    damage(content)
    torch.save(content, path)
    with pytest.raises(IrpruneError, match="not a usable checkpoint; remove it to start again"):
        checkpoint.load(path, "id")


def test_a_checkpoint_of_before_there_was_a_hash_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    wanted = save(path)
    content = torch.load(path, weights_only=True)
    del content["hash"]
    torch.save(content | {"format": 1}, path)
    assert repr(checkpoint.load(path, "id")) == repr(wanted)


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

"""Folders of runs: for one process at a time, and for one run once something is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from irprune import IrpruneError
from irprune.explore.folders import alone, claim, tidy

MINE = {"data": {"name": "npz"}, "train": {"epochs": 3}, "network": "a", "examples": "b"}
OTHER = MINE | {"train": {"epochs": 2}}
HOLDING = """
import os, sys, time
from pathlib import Path
from irprune.explore.folders import alone
with alone(Path(sys.argv[1])):
    if os.fork() == 0:  # a worker, which outlives its parent until its own parent's pipe closes
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has forked a worker, holds the folder."""
    command = [sys.executable, "-c", HOLDING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_that_another_process_holds_is_refused(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(IrpruneError, match="another process"), alone(tmp_path):
        pass


def test_a_killed_process_frees_its_folder_though_its_workers_live_on(tmp_path: Path) -> None:
    with held(tmp_path) as process:
        process.kill()
        process.wait()
        with alone(tmp_path):
            pass


def claimed(folder: Path, noted: dict[str, Any], *files: str) -> Any:
    """What a folder with these files is for after a claim on it."""
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "run.json").write_text(json.dumps(noted))
    claim(folder, MINE, unlike="", log=print)
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(
    "left", ["round-000/start.onnx", "round-000/epoch-0.onnx", "round-001/plan.json", "log.jsonl"]
)
def test_a_folder_without_results_becomes_another_run_s(tmp_path: Path, left: str) -> None:
    assert claimed(tmp_path, OTHER, left) == MINE
    assert not list(tmp_path.glob("round-*"))


@pytest.mark.parametrize(
    ("noted", "result"),
    [
        (OTHER, "checkpoint.pt"),
        (OTHER, "round-000/checkpoint.pt"),
        (OTHER, "round-001/record.json"),
        ({"id": 7}, "round-000/of-something-else"),
    ],
)
def test_a_folder_with_results_stays_what_it_is(
    tmp_path: Path, noted: dict[str, Any], result: str
) -> None:
    with pytest.raises(IrpruneError, match="another run: .*train.* differ; choose another folder"):
        claimed(tmp_path, noted, result)
    assert json.loads((tmp_path / "run.json").read_text()) == noted
    assert (tmp_path / result).is_file()


def test_what_kills_left_is_removed(tmp_path: Path) -> None:
    kept = {
        ".notes.txt.12345678",
        "checkpoint.pt",
        "round-000/checkpoint.pt",
        "round-001/record.json",
        "elsewhere/.model.onnx.12345678",
    }
    left = {
        ".run.json.12345678",
        "round-000/.checkpoint.pt.abc_def1",
        "round-001/.model.onnx.12345678",
        "round-001/checkpoint.pt",
    }
    for name in kept | left:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    tidy(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == kept

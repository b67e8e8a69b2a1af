"""Folders of runs: one process at a time works in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from irprune import IrpruneError
from irprune.explore.folders import alone

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

"""The files of a run's folder: held by one process, and read with a mend for what is damaged."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irprune import api
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.plan import Plan


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder; turn what the disk refuses into an IrpruneError, which names the file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        mend = f"{folder} must be a folder that can be written to, with room left"
        reason = error.strerror or str(error)
        raise IrpruneError(reason, file=error.filename or folder, mend=mend) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process (IrpruneError: another one holds it)."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            reason = "another process is at work in this folder"
            raise IrpruneError(reason, file=folder, mend="wait for it, or end it") from error
        yield


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Return the object that a JSON file holds (IrpruneError: none)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IrpruneError(f"cannot read: {error}", file=path, mend=mend) from error
    if not isinstance(found, dict):
        raise IrpruneError("is no JSON object", file=path, mend=mend)
    return found


def load_model(path: Path) -> Model:
    """Return a model that a round wrote (IrpruneError: it is missing or damaged)."""
    with _mended(path):
        return api.load(path)


def load_plan(path: Path) -> Plan:
    """Return a plan that a round wrote (IrpruneError: it is missing or damaged)."""
    with _mended(path):
        return Plan.load(path)


@contextmanager
def _mended(path: Path) -> Iterator[None]:
    """Let errors say how a file that the run itself wrote comes back."""
    try:
        yield
    except IrpruneError as error:
        error.mend = again(path)
        raise


def again(path: Path) -> str:
    """Return how a file that the run itself wrote comes back."""
    return f"remove the folder {path.parent}: the round is then done again"

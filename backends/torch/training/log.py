"""What training tells: one JSON line per event in a file, and TensorBoard where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irprune.atomic import write_text
from irprune.errors import IrpruneError


class TrainingLog:
    """Rows of numbers by step. A resumed run first drops what it will tell again.

    Raises IrpruneError where the file cannot be read or written.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path = folder / "log.jsonl"
        self._writer = _writer(folder / "tensorboard", step) if tensorboard else None
        if self._path.is_file():
            rows = [line for line in _read(self._path).splitlines() if _step(line) <= step]
            write_text(self._path, "".join(f"{row}\n" for row in rows))

    def add(self, step: int, **numbers: float) -> None:
        """Write a row (IrpruneError: the disk does not take it)."""
        try:
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step, **numbers}) + "\n")
        except OSError as error:
            raise IrpruneError(f"cannot write: {error.strerror}", file=self._path) from error
        if self._writer is not None:
            for name, number in numbers.items():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _read(path: Path) -> str:
    mend = "remove it: only the log of the past is lost"
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise IrpruneError(f"cannot read: {error.strerror}", file=path, mend=mend) from error
    except UnicodeDecodeError as error:
        raise IrpruneError("not a log: no UTF-8 text", file=path, mend=mend) from error


def _step(line: str) -> float:
    """The step of a row; a row that a kill cut short counts as yet to come."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        mend = "pip install tensorboard, or set tensorboard = false"
        raise IrpruneError("tensorboard is not installed", mend=mend) from error
    try:
        return SummaryWriter(str(folder), purge_step=step + 1)
    except OSError as error:
        raise IrpruneError(f"cannot write here: {error.strerror}", file=folder) from error

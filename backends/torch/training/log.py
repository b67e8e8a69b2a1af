"""What training tells: one JSON line per event in a file, and TensorBoard where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irprune.atomic import write_text
from irprune.errors import IrpruneError


class TrainingLog:
    """Rows of numbers by step. A resumed run first drops what it will tell again."""

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self._path = folder / "log.jsonl"
        self._writer = _writer(folder / "tensorboard", step) if tensorboard else None
        if self._path.is_file():
            rows = [line for line in self._path.read_text().splitlines() if _step(line) <= step]
            write_text(self._path, "".join(f"{row}\n" for row in rows))

    def add(self, step: int, **numbers: float) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        if self._writer is not None:
            for name, number in numbers.items():
                self._writer.add_scalar(name, number, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


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
    return SummaryWriter(str(folder), purge_step=step + 1)

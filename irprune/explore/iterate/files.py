"""What rounds wrote, read with a mend for what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from irprune import api
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.plan import Plan


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

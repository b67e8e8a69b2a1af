"""Files that are either whole or absent."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from irprune.errors import IrpruneError

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""How a temporary file is named: after the one whose place it is to take."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there when the block ends without error.

    What is moved has reached the disk: a machine that stops leaves no empty file behind either.

    Raises IrpruneError where the folder cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise IrpruneError(
            f"cannot write here: {error.strerror}", file=path, mend="choose a writable folder"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise IrpruneError(f"cannot write: {error.strerror}", file=path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_temporaries(folder: Path, suffixes: Collection[str]) -> None:
    """Remove what a kill left of files with these suffixes; nobody else may be writing there."""
    for path in folder.iterdir():
        made = _TEMPORARY.fullmatch(path.name)
        if made and Path(made[1]).suffix in suffixes and path.is_file():
            path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it (IrpruneError: that is not possible)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"cannot make this folder: {error.strerror}"
        raise IrpruneError(reason, file=folder, mend="choose a writable folder") from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Arrays from .npz files, which may be damaged, or made to look larger than they are."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irprune.errors import IrpruneError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_DAMAGED = (
    *(ValueError, TypeError, IndexError, SyntaxError, OverflowError, EOFError, RuntimeError),
    *(MemoryError, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
"""What zipfile and numpy raise of damaged archives and headers (an OSError aside)."""


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by name: all, or those of some names that it holds.

    Raises:
        IrpruneError: the file cannot be read, is no archive of plain arrays, or does not fit into
            memory.
    """
    try:
        with path.open("rb") as file:
            if file.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("it is a single array without a name")
            with zipfile.ZipFile(file) as archive:
                members = [i for i in archive.infolist() if i.filename.endswith(".npy")]
                held = {info.filename.removesuffix(".npy"): info for info in members}
                wanted = [name for name in held if names is None or name in names]
                return {name: _read(archive, held[name]) for name in wanted}
    except OSError as error:
        raise IrpruneError(f"cannot be read: {error.strerror or error}", file=path) from error
    except _DAMAGED as error:
        what = str(error) or type(error).__name__
        reason = f"not a usable .npz archive of plain arrays: {what}"
        raise IrpruneError(reason, file=path, mend="write it with numpy.savez") from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read a member, for which memory is taken only if it is as long as its header says."""
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{info.filename} has the format version {version}")
        shape, _, dtype = _HEADERS[version](file)
        held = info.file_size - file.tell()
        if not dtype.hasobject and prod(shape) * dtype.itemsize != held:
            raise ValueError(f"{info.filename} holds {held} bytes where its header says {shape}")
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array

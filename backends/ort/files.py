"""The files that make up a model."""

from __future__ import annotations

import contextlib
import mmap
import os
import re

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])", re.DOTALL)
"""The protobuf entry that names a file of external data, up to the length of the name."""


def model_files(model: str) -> tuple[str, ...]:
    """Return the model file and the files of external data that it names, without parsing it."""
    locations: set[bytes] = set()
    with open(model, "rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for found in _LOCATION.finditer(data):
                    length = sum((byte & 0x7F) << 7 * k for k, byte in enumerate(found[1]))
                    locations.add(data[found.end() : found.end() + length])
    folder = os.path.dirname(model)
    names = sorted(os.fsdecode(location) for location in locations)
    return (model, *(os.path.join(folder, name) for name in names))


def disk_bytes(model: str) -> int:
    """Return the size of a model with its external data, as far as the files are there."""
    total = 0
    for path in model_files(model):
        with contextlib.suppress(OSError, ValueError):
            total += os.path.getsize(path)
    return total

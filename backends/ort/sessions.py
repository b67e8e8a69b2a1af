"""onnxruntime sessions: opened as a request says, the two last used kept for the next request.

A proof runs the same two files for every sample input and every chunk of activations; opening
them again each time would cost more than running them.
"""

from __future__ import annotations

import mmap
import os
import re
import time
from dataclasses import dataclass
from typing import Any

import onnxruntime as ort

KEPT = 2
"""Sessions held at a time: they hold all weights of their models."""

ERRORS_ONLY = 3

_SETTINGS = ("model", "optimize", "threads", "provider")
_SETTLED_NS = 100_000_000
"""Age from which a file's time stamp tells a later change apart: clocks of file systems tick."""

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x80-\xff]*[\x00-\x7f])", re.DOTALL)
"""The protobuf entry that names a file of external data, up to the length of the name."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, time and size of each file; None for a file that is not there."""


def open_session(request: dict[str, Any]) -> ort.InferenceSession:
    """Open the model file of a request with its settings; ValueError where it lacks a provider."""
    provider = request["provider"]
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    # Idle threads of one child must not take the cores while another child is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if request["optimize"] else levels.ORT_DISABLE_ALL
    )
    available = ort.get_available_providers()
    if provider not in available:
        raise ValueError(f"onnxruntime has no {provider}; it has {', '.join(available)}")
    session = ort.InferenceSession(request["model"], options, providers=[provider])
    if provider not in session.get_providers():
        raise ValueError(f"onnxruntime could not start {provider}")
    return session


@dataclass(frozen=True)
class _Kept:
    session: ort.InferenceSession
    files: tuple[str, ...]
    """The model file and those of its external data."""
    stamp: Stamp


class Sessions:
    """The sessions used last, the latest at the end; none of a file that has changed since."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], _Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, request: dict[str, Any]) -> ort.InferenceSession:
        """Return a session for the request; raises what opening it raises."""
        self._kept = {key: k for key, k in self._kept.items() if _stamp(k.files) == k.stamp}
        key = tuple(request[name] for name in _SETTINGS)
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept[key] = kept
            return kept.session
        while len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        now, files = time.time_ns(), _files(request["model"])
        stamp = _stamp(files)
        kept = _Kept(open_session(request), files, stamp)
        if all(entry is None or now - entry[1] > _SETTLED_NS for entry in stamp):
            self._kept[key] = kept
        return kept.session


def _stamp(files: tuple[str, ...]) -> Stamp:
    return tuple(map(_file_stamp, files))


def _file_stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _files(model: str) -> tuple[str, ...]:
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

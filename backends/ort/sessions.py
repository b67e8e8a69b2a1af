"""onnxruntime sessions: opened as a request says, the two last used kept for the next request.

A proof runs the same two files for every sample input and every chunk of activations; opening
them again each time would cost more than running them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from irprune.backends.ort.files import model_files
from irprune.backends.ort.providers import CPU, CUDA, TENSORRT, full_name, short_name

KEPT = 2
"""Sessions held at a time: they hold all weights of their models."""

ERRORS_ONLY = 3

_WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"
_WEIGHTS_FROM_BYTES = "session.optimized_model_external_initializers_min_size_in_bytes"

_SETTINGS = ("model", "optimize", "threads", "provider")
_SETTLED_NS = 100_000_000
"""Age from which a file's time stamp tells a later change apart: clocks of file systems tick."""

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Inode, time and size of each file; None for a file that is not there."""


def open_session(request: dict[str, Any], profile: str | None = None) -> ort.InferenceSession:
    """Open the model file of a request with its settings; ValueError where it lacks a provider.

    `provider_options` are of that provider. With `profile`, the prefix of files, every run is
    recorded, and the graph that runs is written to ``<profile>.onnx`` where that can be.
    """
    available = ort.get_available_providers()
    provider = full_name(request["provider"], available)
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    # Idle threads of one child must not take the cores while another child is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if request["optimize"] else levels.ORT_DISABLE_ALL
    )
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
        if provider in (CPU, CUDA):  # others compile nodes, which no file can hold
            options.optimized_model_filepath = f"{profile}.onnx"
            options.add_session_config_entry(_WEIGHTS_FILE, f"{Path(profile).name}.weights")
            options.add_session_config_entry(_WEIGHTS_FROM_BYTES, "1024")
    providers = [(provider, dict(request.get("provider_options", {})))]
    if provider == TENSORRT and CUDA in available:
        providers.append((CUDA, {}))  # what TensorRT leaves
    session = ort.InferenceSession(request["model"], options, providers=providers)
    if provider not in session.get_providers():
        found = ", ".join(map(short_name, session.get_providers()))
        raise ValueError(f"onnxruntime could not start {short_name(provider)}, only {found}")
    return session


def placement(session: ort.InferenceSession) -> dict[str, int]:
    """Return how many nodes each provider took, by its short name; {} where it is not known."""
    info = getattr(session, "get_provider_graph_assignment_info", list)
    taken: Counter[str] = Counter()
    for part in info():
        taken[short_name(part.ep_name)] += len(part.get_nodes())
    return dict(taken)


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
        now, files = time.time_ns(), model_files(request["model"])
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

"""Peak memory of this process, or of a GPU, above a first state."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_KIB = 1024
_MIB = 1024**2


class Memory:
    """Starts at the state it is made in; `gpu` is a device number, None for this process."""

    def __init__(self, gpu: int | None) -> None:
        self._gpu = gpu
        with contextlib.suppress(OSError):  # the peak starts over: Linux only, not in every sandbox
            Path("/proc/self/clear_refs").write_text("5")
        self._base = _resident() if gpu is None else _used(gpu)

    def peak(self) -> int | None:
        """Return the bytes above the first state, at most (of a GPU: now); None if unknown."""
        now = _high() if self._gpu is None else _used(self._gpu)
        return None if now is None or self._base is None else max(0, now - self._base)


def _resident() -> int:
    return _entry("VmRSS") or _high()


def _high() -> int:
    unit = 1 if sys.platform == "darwin" else _KIB
    return _entry("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _entry(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * _KIB


def _used(gpu: int) -> int | None:
    """Return the bytes in use on a GPU, of all processes together, as nvidia-smi tells them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    device = visible[gpu] if gpu < len(visible) and visible[gpu] else str(gpu)
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run([*command, "-i", device], capture_output=True, check=True, timeout=10)
        return int(done.stdout) * _MIB
    except (OSError, subprocess.SubprocessError, ValueError):
        return None

"""The CPU of this machine, as its system tells it."""

from __future__ import annotations

import platform
import re
from pathlib import Path

_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}
"""Vector extensions by their flag, the widest first."""


def cpu() -> str:
    """Return the CPU's name, what tells it from others of the name, and its vector extension.

    Guests of a hypervisor often have a name that generations share: `AMD EPYC`.
    """
    name = _field("model name") or platform.processor() or platform.machine()
    facts = [
        f"{what} {found}"
        for what, key in (("family", "cpu family"), ("model", "model"), ("part", "CPU part"))
        if (found := _field(key))
    ]
    flags = cpu_flags()
    facts += [vectors for flag, vectors in _VECTORS.items() if flag in flags][:1]
    return f"{name} ({', '.join(facts)})" if facts else name


def cpu_flags() -> frozenset[str]:
    """Return what the CPU can do, by the names that Linux has for it; none where nothing tells."""
    return frozenset((_field("flags") or _field("Features") or "").split())


def _field(name: str) -> str | None:
    """Return what `/proc/cpuinfo` says of the first CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None

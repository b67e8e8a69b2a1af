"""The CPU of this machine, as its system tells it."""

from __future__ import annotations

import platform
from pathlib import Path

_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sve": "SVE", "asimd": "NEON"}
"""Vector extensions by their flag, the widest first."""


def cpu() -> str:
    """Return the CPU's name, what tells it from others of the name, and its vector extension.

    Guests of a hypervisor often have a name that generations share: `AMD EPYC`.
    """
    told = _told()
    name = told.get("model name") or platform.processor() or platform.machine()
    names = {"family": "cpu family", "model": "model", "part": "CPU part"}
    facts = [f"{what} {told[key]}" for what, key in names.items() if key in told]
    flags = _flags(told)
    facts += [vectors for flag, vectors in _VECTORS.items() if flag in flags][:1]
    return f"{name} ({', '.join(facts)})" if facts else name


def cpu_flags() -> frozenset[str]:
    """Return what the CPU can do, by the names that Linux has for it; none where nothing tells."""
    return _flags(_told())


def _flags(told: dict[str, str]) -> frozenset[str]:
    return frozenset(told.get("flags", told.get("Features", "")).split())


def _told() -> dict[str, str]:
    """Return what `/proc/cpuinfo` says of the first CPU."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}

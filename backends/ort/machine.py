"""The machine while it measures: what it is, and who else used it."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from irprune.host import cpu

OTHERS = 0.1
"""CPUs' worth of other work from which on it is worth a note."""
STOLEN = 0.01
SLOWED = 0.05

_LOOK_S = 0.1
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def describe() -> dict[str, Any]:
    """Return the machine's CPU, cores and system, fit for JSON."""
    return {
        "cpu": cpu(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(usable_cpus()),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def usable_cpus() -> list[int]:
    """Return the CPUs that this process and its children may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def least_busy(count: int, root: Path = Path("/")) -> list[int]:
    """Return the `count` CPUs that did least in a tenth of a second; [] if that leaves no choice.

    On fixed CPUs, models share what these CPUs suffer from. The first ones serve interrupts, so the
    last of equals are taken.
    """
    usable = usable_cpus()
    if count >= len(usable) or not hasattr(os, "sched_setaffinity"):
        return []
    before = _busy(root)
    time.sleep(_LOOK_S)
    after = _busy(root)
    by_work = sorted(usable, key=lambda cpu: (after.get(cpu, 0) - before.get(cpu, 0), -cpu))
    return sorted(by_work[:count])


@dataclass(frozen=True)
class Moment:
    """CPU seconds so far of all processes, of ours and of the hypervisor, at a time.

    None where the system does not tell.
    """

    clock: float
    busy: float | None
    stolen: float | None
    ours: float
    megahertz: float | None

    @classmethod
    def now(cls, pids: Iterable[int] = (), root: Path = Path("/")) -> Self:
        """Look at the clock; `pids` are the processes that count as ours beside this one."""
        busy, stolen = _cpu_seconds(root)
        mine = os.times()
        ours = sum(mine[:4]) + sum(_process_seconds(pid, root) for pid in pids)
        return cls(time.perf_counter(), busy, stolen, ours, _megahertz(root))


def disturbances(before: Moment, after: Moment) -> tuple[str, ...]:
    """Return what else used the machine between two moments, as far as it matters."""
    seconds = after.clock - before.clock
    if seconds <= 0:
        return ()
    found = []
    if before.busy is not None and after.busy is not None:
        others = (after.busy - before.busy - (after.ours - before.ours)) / seconds
        if others > OTHERS:
            found.append(f"other processes used {others:.1f} CPUs meanwhile")
    if before.stolen is not None and after.stolen is not None:
        stolen = (after.stolen - before.stolen) / seconds
        if stolen > STOLEN:
            found.append(f"the hypervisor took {stolen:.0%} of a CPU meanwhile")
    if before.megahertz and after.megahertz and after.megahertz < before.megahertz * (1 - SLOWED):
        found.append(f"the clock fell from {before.megahertz:.0f} to {after.megahertz:.0f} MHz")
    return tuple(found)


def _busy(root: Path) -> dict[int, int]:
    """Return the busy and stolen ticks of each CPU so far."""
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        return {}
    found = (re.match(r"cpu(\d+) (.*)", line) for line in lines)
    ticks = {int(m[1]): [int(field) for field in m[2].split()] for m in found if m}
    return {cpu: sum(fields[:3]) + sum(fields[5:8]) for cpu, fields in ticks.items()}


def _cpu_seconds(root: Path) -> tuple[float | None, float | None]:
    """Return the busy and the stolen seconds of all CPUs together."""
    try:
        fields = (root / "proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = (int(f) / _TICK for f in fields[:8])
    except (OSError, ValueError):
        return None, None
    return user + nice + system + irq + softirq, steal


def _process_seconds(pid: int, root: Path) -> float:
    try:
        fields = (root / f"proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def _megahertz(root: Path) -> float | None:
    """Return the mean clock of all CPUs."""
    paths = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    try:
        found = [int(path.read_text()) / 1000 for path in paths]
    except (OSError, ValueError):
        return None
    return sum(found) / len(found) if found else None

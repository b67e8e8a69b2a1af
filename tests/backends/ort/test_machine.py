import os
from pathlib import Path

import pytest

from irprune.backends.ort import machine
from irprune.backends.ort.machine import Moment, disturbances

TICKS = os.sysconf("SC_CLK_TCK")


def system(root: Path, busy: float = 0, stolen: float = 0, ours: float = 0, mhz: int = 0) -> Path:
    """Write a machine whose two CPUs share the work, with process 7 as ours."""
    stat = [int(busy * TICKS), 0, 0, 0, 0, 0, 0, int(stolen * TICKS), 0, 0]
    line = " ".join(map(str, stat))
    (root / "proc/7").mkdir(parents=True, exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  {line}\ncpu0 {line}\ncpu1 0 0 0 0 0 0 0 0 0 0\n")
    fields = ["S", *["0"] * 10, str(int(ours * TICKS)), "0"]
    (root / "proc/7/stat").write_text(f"7 (a b) c) {' '.join(fields)}")
    clock = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    if mhz:
        clock.parent.mkdir(parents=True, exist_ok=True)
        clock.write_text(f"{mhz * 1000}\n")
    return root


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Ten seconds pass between two looks; this process itself does nothing."""
    times = [0.0, 10.0]
    monkeypatch.setattr(machine.time, "perf_counter", lambda: times.pop(0))
    monkeypatch.setattr(machine.os, "times", lambda: (0.0,) * 5)
    return times


def test_our_own_work_disturbs_nobody(tmp_path: Path, clock: list[float]) -> None:
    before = Moment.now([7], system(tmp_path, busy=100, ours=5, mhz=3000))
    after = Moment.now([7], system(tmp_path, busy=110.5, stolen=0.05, ours=15, mhz=2900))
    assert disturbances(before, after) == ()


def test_disturbances_are_named(tmp_path: Path, clock: list[float]) -> None:
    before = Moment.now([7], system(tmp_path, busy=100, ours=5, mhz=3000))
    after = Moment.now([7], system(tmp_path, busy=125, stolen=1, ours=15, mhz=2400))
    assert disturbances(before, after) == (
        "other processes used 1.5 CPUs meanwhile",
        "the hypervisor took 10% of a CPU meanwhile",
        "the clock fell from 3000 to 2400 MHz",
    )


def test_a_system_that_tells_nothing(tmp_path: Path, clock: list[float]) -> None:
    looks = [Moment.now([7], tmp_path), Moment.now([7], tmp_path)]
    assert disturbances(*looks) == ()


def test_the_least_busy_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cpus", lambda: [0, 1, 3])

    def write(*busy: int) -> None:
        rows = (f"cpu{k} {ticks} 0 0 5 5 0 0 0 0 0" for k, ticks in enumerate(busy))
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc/stat").write_text("\n".join(["cpu 0", *rows]))

    def wait(after: tuple[int, ...]) -> None:
        write(50, 50, 50, 50)
        monkeypatch.setattr(machine.time, "sleep", lambda _: write(*after))

    wait((50, 58, 50, 51))
    assert machine.least_busy(1, tmp_path) == [0]
    wait((50, 58, 50, 51))
    assert machine.least_busy(2, tmp_path) == [0, 3]
    wait((50, 50, 50, 50))
    assert machine.least_busy(1, tmp_path) == [3]
    assert machine.least_busy(3, tmp_path) == []


def test_description() -> None:
    found = machine.describe()
    assert found["cpu"]
    assert 1 <= found["usable_cpus"] <= found["cpus"]

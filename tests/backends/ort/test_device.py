import platform
from pathlib import Path
from typing import Any

import pytest

from irprune.backends.ort.device import CpuDevice
from irprune.cache import VARIABLE
from irprune.protocols import DeviceModel
from irprune.staircase import Finding, Law


@pytest.mark.parametrize(
    ("system", "machine", "flags", "align"),
    [
        ("Linux", "x86_64", "fpu avx2 avx512f avx512vl", 16),
        ("Linux", "x86_64", "fpu avx2 avx512_vnni", 8),
        ("Linux", "aarch64", "avx512f", 8),
        ("Darwin", "x86_64", "avx512f", 8),
    ],
)
def test_align(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    machine: str,
    flags: str,
    align: int,
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    read, text = Path.read_text, f"model name\t: x\nflags\t\t: {flags}\n\n"

    def patched(path: Path, *args: Any, **options: Any) -> str:
        return text if str(path) == "/proc/cpuinfo" else read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", patched)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    device: DeviceModel = CpuDevice()
    assert device.name == "cpu"
    assert device.align() == align


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert CpuDevice().align() in (8, 16)


@pytest.mark.parametrize(("error", "align"), [(0.05, 4), (0.2, 16)])
def test_a_law_that_explains_little_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, error: float, align: int
) -> None:
    found = {"Conv": Finding(Law(4), error, 2 * error, 1.0)}
    monkeypatch.setattr(CpuDevice, "findings", lambda self: found)
    assert CpuDevice(avx512=True).align() == align

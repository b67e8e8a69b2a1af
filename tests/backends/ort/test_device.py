import platform
from pathlib import Path

import pytest

from irprune.backends.ort.device import CpuDevice
from irprune.protocols import DeviceModel


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
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, flags: str, align: int
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda path: f"model name\t: x\nflags\t\t: {flags}\n\n")
    device: DeviceModel = CpuDevice()
    assert device.name == "cpu"
    assert device.align() == align


def test_this_machine() -> None:
    assert CpuDevice().align() in (8, 16)

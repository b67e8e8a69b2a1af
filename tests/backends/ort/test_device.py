from pathlib import Path

import pytest

from irprune.backends.ort import device
from irprune.backends.ort.device import CpuDevice
from irprune.cache import VARIABLE
from irprune.protocols import DeviceModel
from irprune.staircase import Finding, Law


@pytest.mark.parametrize(
    ("flags", "align"),
    [({"avx2", "avx512f", "avx512vl"}, 16), ({"avx2", "avx512_vnni"}, 8), ({"asimd"}, 8)],
)
def test_align(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: set[str], align: int
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: flags)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    found: DeviceModel = CpuDevice()
    assert found.name == "cpu"
    assert found.align() == align


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

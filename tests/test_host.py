from pathlib import Path
from typing import Any

import pytest

from irprune import host

X86 = """processor	: 0
cpu family	: 25
model		: 1
model name	: AMD EPYC
flags		: fpu sse2 avx avx2

processor	: 1
cpu family	: 6
model name	: another
flags		: fpu avx512f
"""
ARM = "processor	: 0\nFeatures	: fp asimd\nCPU part	: 0xd40\n"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system tells: an empty list if nothing."""
    told: list[str] = []
    read = Path.read_text

    def patched(path: Path, *args: Any, **options: Any) -> str:
        if str(path) != "/proc/cpuinfo":
            return read(path, *args, **options)
        if not told:
            raise FileNotFoundError(path)
        return told[0]

    monkeypatch.setattr(Path, "read_text", patched)
    monkeypatch.setattr(host.platform, "processor", lambda: "")
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    return told


def test_a_cpu_that_shares_its_name(cpuinfo: list[str]) -> None:
    cpuinfo.append(X86)
    assert host.cpu() == "AMD EPYC (family 25, model 1, AVX2)"
    assert host.cpu_flags() == {"fpu", "sse2", "avx", "avx2"}


def test_a_cpu_without_a_name(cpuinfo: list[str]) -> None:
    cpuinfo.append(ARM)
    assert host.cpu() == "aarch64 (part 0xd40, NEON)"


def test_a_system_that_tells_nothing(cpuinfo: list[str]) -> None:
    assert host.cpu() == "aarch64"
    assert host.cpu_flags() == frozenset()


def test_this_machine() -> None:
    assert host.cpu()

from pathlib import Path

import numpy as np
import pytest

from irprune.backends.ort.memory import Memory

MIB = 1024**2


def test_the_peak_stays_after_the_memory_is_free() -> None:
    memory = Memory(None)
    np.ones(64 * MIB, np.uint8)
    peak = memory.peak()
    assert peak is not None
    assert 60 * MIB < peak < 200 * MIB


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that answers for device 1 what the file says."""
    answer = tmp_path / "used"
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$3 $4" = "-i 1" ] && cat {answer}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return answer


def test_memory_of_a_gpu(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi.write_text("500\n")
    memory = Memory(1)
    smi.write_text("740\n")
    assert memory.peak() == 240 * MIB
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    smi.write_text("900\n")
    assert memory.peak() == 400 * MIB


def test_a_gpu_that_nobody_can_ask(smi: Path) -> None:
    smi.write_text("[N/A]\n")
    assert Memory(1).peak() is None
    assert Memory(0).peak() is None

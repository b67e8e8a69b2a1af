"""What is known about the CPU that onnxruntime runs on."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, field
from pathlib import Path


def _has_avx512() -> bool:
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "i686"):
        return False
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return flags is not None and "avx512f" in flags[1].split()


@dataclass(frozen=True)
class CpuDevice:
    """A `DeviceModel`: onnxruntime's blocked kernels step by 16 channels with AVX-512, else 8."""

    name: str = "cpu"
    avx512: bool = field(default_factory=_has_avx512)

    def align(self) -> int:
        return 16 if self.avx512 else 8

"""What is known about the CPU that onnxruntime runs on, and what is measured on it."""

from __future__ import annotations

import platform
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from irprune.backends.ort.latency import Latency, Term, features, fit
from irprune.backends.ort.profiling import ProfilingChild
from irprune.channels import Channels
from irprune.designs import designs
from irprune.kernels import NodeKernel, Numbers, split
from irprune.protocols import Prunable, RunnerError

PLANS = 24
BUDGET_S = 100.0
"""Seconds after which no further plan is profiled."""


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
    threads: int = 1
    provider: str = "CPUExecutionProvider"

    def align(self) -> int:
        return 16 if self.avx512 else 8

    def costs(self, base: Prunable, log: Callable[[str], None]) -> Latency:
        """Profile designed plans and fit a term to every kernel."""
        kernels = split(base.channels, base.symbols)
        runs = self._profiles(base, kernels, log)
        step = self.align()
        fitted = _terms(kernels, runs, step)
        predicted = np.array(
            [
                sum(
                    term.at(kernel, run.lengths[None, kernel.axes])[0]
                    for kernel, term in zip(kernels, fitted, strict=True)
                )
                for run in runs
            ]
        )
        measured = np.array([run.seconds for run in runs])
        constant, scale = fit(np.stack([np.ones(len(runs)), predicted], axis=1), measured)
        widths = _widths(base.channels, step)
        return Latency(kernels, fitted, float(constant), float(scale), widths)

    def _profiles(
        self, base: Prunable, kernels: list[NodeKernel], log: Callable[[str], None]
    ) -> list[Run]:
        owners = _owners(kernels)
        whole = np.ones(base.channels.count, np.bool_)
        plans = designs(base.channels, base.groups, self.align())
        runs: list[Run] = []
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, ProfilingChild() as child:
            path = Path(folder) / "plan.onnx"
            for keep in (whole, *islice(plans, PLANS)):
                base.write(keep, path)
                request = {"op": "profile", "model": str(path), "threads": self.threads}
                try:
                    reply, _ = child.request(
                        request | {"provider": self.provider}, base.feeds, file=path
                    )
                except RunnerError as error:
                    log(f"a plan could not be profiled: {error.reason}")
                    if not child.alive():
                        raise
                    continue
                seconds = _attributed(reply["nodes"], owners, len(kernels))
                slow = reply["reference"] / (runs[0].reference if runs else reply["reference"])
                lengths = base.channels.lengths(keep)
                runs.append(
                    Run(lengths, seconds / slow, reply["seconds"] / slow, reply["reference"])
                )
                if time.monotonic() - start > BUDGET_S:
                    break
        log(f"profiled {len(runs)} plans in {time.monotonic() - start:.0f} s")
        return runs


@dataclass(frozen=True)
class Run:
    """One profiled plan: axis lengths, seconds per kernel, and seconds of whole runs."""

    lengths: np.ndarray
    kernels: Numbers
    seconds: float
    reference: float


def _owners(kernels: list[NodeKernel]) -> dict[str, int]:
    """Return the kernel that each node name and value name of the base belongs to."""
    owners: dict[str, int] = {}
    for number, kernel in enumerate(kernels):
        for node in kernel.nodes:
            owners[node.name or ""] = number
            owners |= {f"{value.name}_nchwc": number for value in node.outputs}
            owners |= {value.name or "": number for value in node.outputs}
    return owners


def _attributed(nodes: list[list[Any]], owners: dict[str, int], count: int) -> Numbers:
    """Return the seconds of each kernel: a node that onnxruntime added counts for the next."""
    seconds = np.zeros(count)
    waiting, last = 0.0, 0
    for name, _, _, took in nodes:
        if name in owners:
            last = owners[name]
            seconds[last] += took + waiting
            waiting = 0.0
        else:
            waiting += took
    seconds[last] += waiting
    return seconds


def _terms(kernels: list[NodeKernel], runs: list[Run], step: int) -> list[Term]:
    """Fit one term per signature to the samples of all kernels that share it."""
    alike: dict[str, list[int]] = {}
    for number, kernel in enumerate(kernels):
        alike.setdefault(kernel.signature, []).append(number)
    lengths = np.stack([run.lengths for run in runs])
    seconds = np.stack([run.kernels for run in runs])
    fitted: dict[str, Term] = {}
    for signature, numbers in alike.items():
        x = [features(kernels[n], lengths[:, kernels[n].axes], step) for n in numbers]
        y = [seconds[:, n] for n in numbers]
        fitted[signature] = Term(step, fit(np.concatenate(x), np.concatenate(y)))
    return [fitted[kernel.signature] for kernel in kernels]


def _widths(channels: Channels, step: int) -> dict[int, np.ndarray]:
    whole = channels.lengths(np.ones(channels.count, np.bool_))
    return {
        axis: np.union1d(np.arange(step, length + 1, step), [length]).astype(np.int64)
        for axis, length in enumerate(whole.tolist())
    }

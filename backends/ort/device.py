"""What is known about the CPU that onnxruntime runs on, and what is measured on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, TypeVar

import numpy as np

from irprune.backends.ort.latency import Latency, Study, fingerprint, latency, measure, plans_needed
from irprune.backends.ort.providers import CPU, CUDA, TENSORRT, short_name
from irprune.cache import Cache
from irprune.errors import IrpruneError
from irprune.host import cpu, cpu_flags
from irprune.kernels import split
from irprune.protocols import Prunable
from irprune.staircase import Finding

T = TypeVar("T")

MEASUREMENT = 3
"""Raised whenever what is measured, or how, changes: older measurements are left alone."""

_SHORT = {short_name(provider): provider for provider in (CPU, CUDA, TENSORRT)}

_NOTABLE = 0.05
"""Part of the measured time from which on a kind's stairs count for the whole device."""


_TRUSTED = 0.1
"""Error of a law, as a part of the measured time, above which it may be the noise of others."""


def _silent(message: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class CpuDevice:
    """A `DeviceModel`: what onnxruntime runs on, by provider and number of threads.

    Until something was measured, it is taken that onnxruntime's blocked kernels step by 16
    channels with AVX-512, else by 8.
    """

    name: str = "cpu"
    avx512: bool = field(default_factory=lambda: "avx512f" in cpu_flags())
    threads: int = 1
    provider: str = CPU

    @classmethod
    def parse(cls, name: str) -> CpuDevice:
        """Return the device ``cpu``, ``cpu:THREADS``, ``cuda``, ``tensorrt`` or a provider's name.

        Raises IrpruneError for a number of threads that is none.
        """
        kind, _, threads = name.partition(":")
        if threads and not (threads.isdecimal() and int(threads)):
            raise IrpruneError(f"device {name}: {threads} is no number of threads", mend="cpu:2")
        return cls(name, threads=int(threads or 1), provider=_SHORT.get(kind, kind))

    def align(self) -> int:
        """Return the step found by measuring, where that was done, or the one to expect."""
        found = self.findings()
        total = sum(finding.seconds for finding in found.values())
        notable = [f for f in found.values() if f.seconds >= _NOTABLE * total]
        steps = [f.law.unit for f in notable if f.error <= _TRUSTED]
        return max(steps) if steps else (16 if self.avx512 else 8)

    def findings(self) -> dict[str, Finding]:
        """Return what was found per kind of kernel the last time something was measured."""
        laws = self._cache().load(_silent).get("laws", {})
        return dict(_read(laws, Finding.from_json, _silent))

    def costs(self, base: Prunable, log: Callable[[str], None]) -> Latency:
        """Profile designed plans, as far as the cache lacks them, and fit a term to every kernel.

        Raises RunnerError where onnxruntime cannot run the base graph.
        """
        kernels = split(base.channels, base.symbols)
        whole = base.channels.lengths(np.ones(base.channels.count, np.bool_)).tolist()
        cache, name = self._cache(), fingerprint(kernels, whole)
        content = cache.load(log)
        studies = dict(_read(content.get("studies", {}), Study.from_json, log))
        others = [study for key, study in studies.items() if key != name]
        took = 0.0
        if name not in studies:
            plans = plans_needed(kernels, others)
            log(f"profiling {plans + 1} plans on {self.name}; they are kept in {cache.path}")
            start = time.monotonic()
            request = {"threads": self.threads, "provider": self.provider}
            studies[name] = measure(base, kernels, request, self.align(), plans, log)
            took = time.monotonic() - start
        found = latency(base, kernels, studies[name], others, took)
        if took:
            laws = dict(_read(content.get("laws", {}), Finding.from_json, log)) | dict(
                found.findings
            )
            content = {
                "studies": {key: asdict(study) for key, study in studies.items()},
                "laws": {kind: asdict(finding) for kind, finding in laws.items()},
            }
            cache.save(content, log)
        return found

    def _cache(self) -> Cache:
        return Cache("device", self.key())

    def key(self) -> dict[str, Any]:
        """Return what measurements depend on."""
        return {
            "measurement": MEASUREMENT,
            "cpu": cpu(),
            "avx512": self.avx512,
            "provider": self.provider,
            "onnxruntime": _version(),
            "threads": self.threads,
        }


def _version() -> str:
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def _read(
    entries: Any, parse: Callable[[Any], T], log: Callable[[str], None]
) -> Iterator[tuple[str, T]]:
    """Yield the entries of a cache that can be read, and tell of the others."""
    try:
        items = list(entries.items())
    except AttributeError:
        log("the cache of measurements holds something unknown; it is measured again")
        return
    for key, entry in items:
        try:
            yield key, parse(entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log(f"a cached measurement is ignored: {error}")

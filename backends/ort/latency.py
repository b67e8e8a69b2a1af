"""The latency of one base graph under any plan, learnt from profiles of designed plans."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irprune.backends.ort.beside import Beside
from irprune.designs import designs
from irprune.kernels import Lengths, NodeKernel, Numbers
from irprune.protocols import Prunable, RunnerError
from irprune.staircase import Finding, Samples, Term, fit, learn

PLANS = 30
LEAST_PLANS = 10
"""Plans to profile where nothing is known, and where every kernel is."""

BUDGET_S = 100.0
"""Seconds after which no further plan is profiled."""

_ENOUGH = 20
"""Samples of other models with which a kernel counts as known."""

_WEIGHTY = 0.1
"""Part of an axis's time from which on a kernel's stairs make its widths useful."""

_FUSED = "fused "
"""What onnxruntime puts before the name of a node that took an activation in."""

Log = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One profiled plan: axis lengths, seconds per kernel, and seconds of whole runs."""

    lengths: list[int]
    kernels: list[float]
    seconds: float
    reference: float
    """Seconds of the unpruned model, timed beside this one."""


@dataclass(frozen=True)
class Study:
    """The profiles of one graph: all that is kept of it."""

    kernels: tuple[str, ...]
    """Signature of each kernel."""
    axes: tuple[tuple[int, ...], ...]
    runs: tuple[Run, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Study:
        """Read what ``asdict`` made; ValueError, KeyError or TypeError where it is not that."""
        runs = tuple(Run(**run) for run in data["runs"])
        study = cls(tuple(data["kernels"]), tuple(map(tuple, data["axes"])), runs)
        for run in runs:
            fits = len(run.kernels) == len(study.kernels) == len(study.axes)
            if not fits or not (run.seconds > 0 and run.reference > 0):
                raise ValueError("a run does not fit its kernels")
        if not runs:
            raise ValueError("it has no runs")
        return study

    def samples(self) -> dict[str, list[tuple[list[int], float]]]:
        """Return lengths and seconds by signature.

        Node times are scaled so that they add up to the run, and runs so that the unpruned model
        takes equally long beside each: the clock of a machine drifts.
        """
        found: dict[str, list[tuple[list[int], float]]] = {}
        usual = float(np.median([run.reference for run in self.runs]))
        for run in self.runs:
            scale = run.seconds / sum(run.kernels) * usual / run.reference
            for signature, axes, took in zip(self.kernels, self.axes, run.kernels, strict=True):
                lengths = [run.lengths[axis] for axis in axes]
                found.setdefault(signature, []).append((lengths, took * scale))
        return found


def fingerprint(kernels: Sequence[NodeKernel], whole: Sequence[int]) -> str:
    """Return what studies of one graph, with axes of these lengths, are kept under."""
    facts = [[(kernel.signature, kernel.axes) for kernel in kernels], list(whole)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Latency:
    """A `DeviceCost` in seconds: a term per kernel, scaled to whole runs."""

    kernels: Sequence[NodeKernel]
    fitted: Sequence[Term]
    constant: float
    scale: float
    widths: Mapping[int, NDArray[np.int64]]
    findings: Mapping[str, Finding]
    runs: int
    """Plans that were profiled, now or before."""
    profiled_s: float
    whole_s: float
    """Measured seconds of the unpruned graph while its plans were profiled."""
    unit: str = "s"

    def terms(self, kernel: int, lengths: Lengths) -> Numbers:
        """Return the seconds of one kernel, shape ``(k,)``, at ``lengths``, ``(k, axes)``."""
        return self.scale * self.fitted[kernel].at(self.kernels[kernel], lengths)

    def useful(self, axis: int) -> NDArray[np.int64]:
        """Return the right ends of the stairs along an axis, and its full length."""
        return self.widths[axis]

    def seconds(self, lengths: Lengths) -> Numbers:
        """Return the seconds of whole runs, shape ``(k,)``; ``lengths`` has ``(k, all axes)``."""
        total = np.full(len(lengths), self.constant)
        for number, kernel in enumerate(self.kernels):
            total += self.terms(number, lengths[:, kernel.axes])
        return total


def measure(
    base: Prunable,
    kernels: Sequence[NodeKernel],
    request: Mapping[str, Any],
    step: int,
    plans: int,
    log: Log,
) -> Study:
    """Profile the whole graph and designed plans of it, and time each beside the whole graph."""
    owners = _owners(kernels)
    whole = np.ones(base.channels.count, np.bool_)
    runs: list[Run] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file, path = Path(folder) / "whole.onnx", Path(folder) / "plan.onnx"
        base.write(whole, file)
        chosen = islice(designs(base.channels, base.groups, step), plans)
        with closing(Beside(file, base.feeds, request)) as beside:
            for keep in (whole, *chosen):
                base.write(keep, path)
                try:
                    found = beside.time(path)
                except RunnerError as error:
                    if not runs:
                        raise
                    log(f"a plan is left out: {error.reason}")
                    continue
                took = _attributed(found.nodes, owners, len(kernels))
                lengths = base.channels.lengths(keep).tolist()
                runs.append(Run(lengths, took, found.seconds, found.whole))
                if time.monotonic() - start > BUDGET_S:
                    break
    signatures = tuple(kernel.signature for kernel in kernels)
    return Study(signatures, tuple(kernel.axes for kernel in kernels), tuple(runs))


def plans_needed(kernels: Sequence[NodeKernel], others: Sequence[Study]) -> int:
    """Return how many plans to profile: fewer where other models have shown the same kernels."""
    known: Counter[str] = Counter()
    for study in others:
        for signature in study.kernels:
            known[signature] += len(study.runs)
    fresh = sum(known[kernel.signature] < _ENOUGH for kernel in kernels) / len(kernels)
    return LEAST_PLANS + round((PLANS - LEAST_PLANS) * fresh)


def latency(
    base: Prunable,
    kernels: Sequence[NodeKernel],
    own: Study,
    others: Sequence[Study],
    profiled_s: float,
) -> Latency:
    """Fit a term to every kernel and the sum of them to whole runs."""
    pooled = own.samples()
    for study in others:
        for signature, samples in study.samples().items():
            if signature in pooled:
                pooled[signature] += samples
    first = {kernel.signature: kernel for kernel in reversed(kernels)}
    lessons = []
    for signature, samples in pooled.items():
        lengths = np.array([lengths for lengths, _ in samples], np.int64)
        seconds = np.array([took for _, took in samples])
        shaped = lengths.reshape(len(samples), -1)
        lessons.append(Samples(first[signature], shaped, seconds))
    terms, findings = learn(lessons)
    fitted = [terms[kernel.signature] for kernel in kernels]
    usual = float(np.median([run.reference for run in own.runs]))
    measured = np.array([run.seconds / run.reference * usual for run in own.runs])
    lengths = np.array([run.lengths for run in own.runs], np.int64)
    by_kernel = [
        term.at(kernel, lengths[:, kernel.axes])
        for kernel, term in zip(kernels, fitted, strict=True)
    ]
    x = np.stack([np.ones(len(measured)), np.sum(by_kernel, axis=0)], axis=1)
    constant, scale = fit(x, measured).tolist()
    widths = _widths(base, kernels, fitted, by_kernel)
    runs = len(own.runs)
    return Latency(kernels, fitted, constant, scale, widths, findings, runs, profiled_s, usual)


def _widths(
    base: Prunable,
    kernels: Sequence[NodeKernel],
    fitted: Sequence[Term],
    by_kernel: Sequence[Numbers],
) -> dict[int, NDArray[np.int64]]:
    """Return the useful lengths of each axis: the widest stairs that weigh something there."""
    whole = base.channels.lengths(np.ones(base.channels.count, np.bool_)).tolist()
    units: dict[int, dict[int, float]] = {axis: {} for axis in range(len(whole))}
    for kernel, term, seconds in zip(kernels, fitted, by_kernel, strict=True):
        for axis, unit in zip(kernel.axes, term.law.units(kernel), strict=True):
            units[axis][unit] = units[axis].get(unit, 0.0) + float(seconds.sum())
    widths = {}
    for axis, length in enumerate(whole):
        total = sum(units[axis].values())
        weighty = [unit for unit, took in units[axis].items() if took >= _WEIGHTY * total]
        unit = max(weighty, default=1)
        widths[axis] = np.union1d(np.arange(unit, length + 1, unit), [length]).astype(np.int64)
    return widths


def _owners(kernels: Sequence[NodeKernel]) -> dict[str, int]:
    """Return the kernel that each node name and value name of the base belongs to."""
    owners: dict[str, int] = {}
    for number, kernel in enumerate(kernels):
        for node in kernel.nodes:
            owners |= {value.name: number for value in node.outputs if value.name}
            if node.name:
                owners[node.name] = number
    return owners


def _attributed(nodes: Sequence[list[Any]], owners: Mapping[str, int], count: int) -> list[float]:
    """Return the seconds of each kernel: a node that onnxruntime added counts for the next."""
    seconds = [0.0] * count
    waiting, last = 0.0, 0
    for name, took in nodes:
        owner = _owner(name, owners)
        if owner is None:
            waiting += took
            continue
        last = owner
        seconds[last] += took + waiting
        waiting = 0.0
    seconds[last] += waiting
    return seconds


def _owner(name: str, owners: Mapping[str, int]) -> int | None:
    """Return the kernel of a node: onnxruntime adds what it did to names of nodes or values."""
    name = name.removeprefix(_FUSED)
    if name in owners:
        return owners[name]
    for end in range(len(name) - 1, 0, -1):
        if name[end] in "/_" and name[:end] in owners:
            return owners[name[:end]]
    return None

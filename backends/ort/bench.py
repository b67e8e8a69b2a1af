"""Latency of models on onnxruntime, measured side by side."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from irprune import timing
from irprune.backends.ort import machine
from irprune.backends.ort.child import Child
from irprune.backends.ort.files import disk_bytes
from irprune.backends.ort.profile import node_times
from irprune.backends.ort.providers import CPU, CUDA, TENSORRT, short_name
from irprune.errors import IrpruneError
from irprune.protocols import (
    USUAL_BENCH,
    Arrays,
    Benchmark,
    BenchSettings,
    Estimate,
    LatencyRow,
    NodeTime,
    RunnerError,
)

MIN_ROUNDS = 16
"""Rounds before the first look at the intervals, where the caller does not fix their number."""

STEP = 1.25
"""The number of rounds grows by this factor from one look at the intervals to the next."""


class OrtBencher:
    """A `Bencher`: child processes of its own for each model, alive while their rounds interleave.

    `timeout` is the number of seconds that loading, or one sample, of one model may take.
    """

    def __init__(self, *, timeout: float | None = None) -> None:
        self.timeout = timeout

    def bench(
        self,
        models: Sequence[Path],
        feeds: Arrays,
        settings: BenchSettings = USUAL_BENCH,
    ) -> Benchmark:
        """Return one row per model, in order; graph optimisations are on.

        On the CPU provider all models run on the same CPUs, as many as there are threads: CPUs
        differ (sockets, kinds of cores, neighbours), and what moves between them scatters.

        A sample is the median of as many runs as take about 20 ms, after one more that brings the
        model back into the caches (one run alone if there is no warm-up).

        Raises IrpruneError where the settings make no sense, the provider is not there or
        onnxruntime is not installed.
        """
        _check(settings)
        cpus = machine.least_busy(settings.threads)
        lanes = [_Lane(path, self.timeout) for path in models]
        about: dict[str, Any] = {}
        notes: dict[str, None] = {}
        rounds, spent = 0, 0.0
        for number, turn in enumerate(_turns(settings), 1):
            live = [lane for lane in lanes if lane.error is None]
            with ExitStack() as stack:
                for lane in live:
                    lane.start(stack.enter_context(Child()))
                about = about or (lanes[0].about(settings.provider) if lanes else {})
                cpus = cpus if about.get("provider") == CPU else []
                for lane in live:
                    lane.load(settings, feeds, cpus)
                before = machine.Moment.now(lane.pid for lane in live)
                rounds += _rounds(live, turn)
                after = machine.Moment.now(lane.pid for lane in live)
                spent += after.clock - before.clock
                notes |= dict.fromkeys(machine.disturbances(before, after))
                for lane in live:
                    lane.end()
            left = settings.limit_s - spent
            if settings.rounds is None and number >= settings.processes:
                runs = [lane.samples for lane in lanes if lane.error is None]
                if left < turn.limit_s or _precise(runs, settings):
                    break
        rows = tuple(lane.row(lanes[0], about["provider"], settings.seed) for lane in lanes)
        on_gpu = about.get("provider") in (CUDA, TENSORRT)
        environment = {
            **machine.describe(),
            "onnxruntime": about.get("version"),
            "provider": about.get("provider"),
            "cpus_used": cpus or machine.usable_cpus(),
            "memory": "device" if on_gpu else "host",
            "settings": asdict(settings),
        }
        if settings.threads > len(machine.usable_cpus()):
            notes[f"{settings.threads} threads share {len(machine.usable_cpus())} CPUs"] = None
        return Benchmark(rows, rounds, tuple(notes), environment)

    def profile(
        self, model: Path, feeds: Arrays, settings: BenchSettings = USUAL_BENCH
    ) -> tuple[NodeTime, ...]:
        """Return what one run of the model is made of, slowest first; not part of a benchmark.

        Raises RunnerError where the model fails.
        """
        _check(settings)
        with Child() as child, tempfile.TemporaryDirectory() as folder:
            prefix = Path(folder) / "profile"
            message = _load(model, settings) | {"op": "profile", "prefix": str(prefix)}
            reply, _ = child.request(message, feeds, file=model, timeout=self.timeout)
            running = prefix.with_suffix(".onnx")
            return node_times(model, Path(reply["trace"]), running if running.exists() else None)


def _load(model: Path, settings: BenchSettings) -> dict[str, Any]:
    """Return the request to load a model."""
    return {
        "op": "load",
        "model": str(Path(model).absolute()),
        "optimize": True,
        "threads": settings.threads,
        "provider": settings.provider,
        "provider_options": dict(settings.provider_options),
        "warmup": settings.warmup,
    }


def _check(settings: BenchSettings) -> None:
    sensible = (
        (settings.rounds is None or settings.rounds >= 1)
        and settings.warmup >= 0
        and settings.threads >= 1
        and settings.precision > 0
        and settings.limit_s > 0
        and settings.processes >= 1
    )
    if not sensible:
        raise IrpruneError(
            "bench needs rounds >= 1, processes >= 1, warmup >= 0, threads >= 1, precision > 0 "
            "and a limit > 0"
        )


def _turns(settings: BenchSettings) -> Iterator[BenchSettings]:
    """Yield what each set of processes has to do: its part of the rounds, or of the limit.

    Without a number of rounds there is no end: sets that were precise early leave time for more.
    """
    if settings.rounds is not None:
        count = min(settings.processes, settings.rounds)
        for k in range(count):
            part = settings.rounds * (k + 1) // count - settings.rounds * k // count
            yield replace(settings, rounds=part, seed=settings.seed + k)
        return
    count = settings.processes
    precision, limit = settings.precision * math.sqrt(count), settings.limit_s / count
    for k in itertools.count():
        yield replace(settings, precision=precision, limit_s=limit, seed=settings.seed + k)


class _Lane:
    """One model under measurement; after its first error it stays out.

    `samples` has a list for each process that ran it.
    """

    def __init__(self, path: Path, timeout: float | None) -> None:
        self.path = path
        self.pid = 0
        self.samples: list[list[float]] = []
        self.error: str | None = None
        self._child: Child
        self._timeout = timeout
        self._loaded: dict[str, Any] = {}
        self._memory: list[int] = []

    def start(self, child: Child) -> None:
        """Go on in another process."""
        self._child, self.pid = child, child.pid
        self.samples.append([])

    def end(self) -> None:
        """Ask the process what it needed."""
        found = self._ask({"op": "memory"}, {}).get("bytes")
        self._memory += [] if found is None else [found]

    def about(self, provider: str) -> dict[str, Any]:
        """Return what runs the models; IrpruneError where the provider is not there."""
        message = {"op": "about", "provider": provider}
        try:
            return self._child.request(message, {}, file=self.path, timeout=self._timeout)[0]
        except RunnerError as error:
            raise IrpruneError(error.reason) from error

    def load(self, settings: BenchSettings, feeds: Arrays, cpus: list[int]) -> None:
        self._loaded = self._ask(_load(self.path, settings) | {"cpus": cpus}, feeds)

    def sample(self) -> None:
        if reply := self._ask({"op": "time"}, {}):
            self.samples[-1].append(reply["seconds"])

    def _ask(self, message: dict[str, Any], feeds: Arrays) -> dict[str, Any]:
        """Return the reply, {} after an error."""
        if self.error is not None:
            return {}
        try:
            reply, _ = self._child.request(message, feeds, file=self.path, timeout=self._timeout)
        except RunnerError as error:
            self.error = error.reason
            self._child.close()
            return {}
        return reply

    def estimate(self, first: _Lane, seed: int) -> tuple[Estimate, Estimate | None] | None:
        """Return the latency and the ratio to the first lane; None after an error."""
        if self.error is not None:
            return None
        latency = timing.estimate(self.samples, seed)
        if first.error is not None:
            return latency, None
        return latency, timing.ratio(self.samples, first.samples, seed)

    def row(self, first: _Lane, provider: str, seed: int) -> LatencyRow:
        found = self.estimate(first, seed)
        samples = tuple(chain.from_iterable(self.samples))
        size = disk_bytes(str(self.path))
        if found is None:
            return LatencyRow(str(self.path), size, samples, error=self.error)
        nodes: dict[str, int] = self._loaded["nodes"]
        elsewhere = sum(nodes.values()) - nodes.get(short_name(provider), 0)
        notes = [self._loaded["note"]] if self._loaded["note"] else []
        if elsewhere:
            where = ", ".join(name for name in nodes if name != short_name(provider))
            notes.append(f"{elsewhere} of {sum(nodes.values())} nodes run on {where}")
        notes += dict.fromkeys(chain.from_iterable(map(timing.doubts, self.samples)))
        memory = max(self._memory, default=None)
        return LatencyRow(str(self.path), size, samples, *found, memory, nodes, tuple(notes))


def _rounds(lanes: Sequence[_Lane], settings: BenchSettings) -> int:
    """Time all lanes round by round until the settings say it is enough; return the rounds."""
    end = math.inf if settings.rounds is not None else time.monotonic() + settings.limit_s
    look = MIN_ROUNDS
    orders = _orders(len(lanes), settings.seed)
    done = 0
    while done != settings.rounds and any(lane.error is None for lane in lanes):
        for k in next(orders):
            lanes[k].sample()
        done += 1
        if time.monotonic() >= end:
            break
        if settings.rounds is None and done >= look:
            if _precise([lane.samples[-1:] for lane in lanes if lane.error is None], settings):
                break
            look = math.ceil(done * STEP)
    return done


def _orders(count: int, seed: int) -> Iterator[list[int]]:
    """Yield the order of each round: a random one, then its reverse, and again.

    No model always follows the same other one, and a steady drift is the same for all.
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count).tolist()
        yield order
        yield order[::-1]


def _precise(runs: Sequence[list[list[float]]], settings: BenchSettings) -> bool:
    """Say whether every ratio (of a single model: its latency) is told well enough.

    `runs` has the samples of each model, by process; none is well enough told. Where the first
    model failed, ratios to another are as hard to tell.
    """
    if len(runs) > 1:
        found = [timing.ratio(samples, runs[0], settings.seed) for samples in runs[1:]]
    else:
        found = [timing.estimate(samples, settings.seed) for samples in runs]
    return all(timing.width(each) <= settings.precision for each in found)

"""Per-node times of a model in a child process of its own.

Node times are the least of several runs, for what disturbs a run only makes it slower; whole runs
are medians of the medians of bursts, as a benchmark takes them: with several threads a mean would
hold disturbances that no single run of a fast model has.

`profile` {model, threads, provider} + feeds -> {nodes, seconds, reference}
          nodes: [name, seconds] in the order of execution; seconds: per run without the
          profiler; reference: the same of the first model, timed beside it
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime as ort

from irprune.backends.ort.sessions import ERRORS_ONLY, open_session
from irprune.backends.ort.worker import MIN_SAMPLE_S, Reply, serve
from irprune.protocols import Arrays

_BUDGET_S = 0.25
"""Runs of one model take about this long; at least three, at most ten."""


_SUFFIX = "_kernel_time"


class Profiler:
    """Holds the session of the first model: all others are timed beside it."""

    def __init__(self) -> None:
        self._reference: Callable[[], object] | None = None

    def profile(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        """Profile one model and then time it, alternating with the reference."""
        with tempfile.TemporaryDirectory() as folder:
            session = _open(request, Path(folder) / "profile")
            session.run(None, feeds)
            once = _seconds(lambda: session.run(None, feeds))
            runs = min(10, max(3, round(_BUDGET_S / max(1e-4, once))))
            for _ in range(runs):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
        # A session that has been profiled stays slower, by some microseconds per node.
        plain = open_session(request | {"optimize": True})

        def work() -> object:
            return plain.run(None, feeds)

        work()
        self._reference = self._reference or work
        own, reference = [], []
        for _ in range(max(3, runs // 2 + 2)):
            own.append(_burst(work))
            reference.append(_burst(self._reference))
        nodes = _nodes(events, runs)
        return {"nodes": nodes, "seconds": median(own), "reference": median(reference)}, {}


def _open(request: dict[str, Any], prefix: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    return ort.InferenceSession(request["model"], options, providers=[request["provider"]])


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _burst(work: Callable[[], object]) -> float:
    """Return the median seconds of some calls in a row, as a benchmark does: caches are warm."""
    once = _seconds(work)
    repeat = max(1, math.ceil(MIN_SAMPLE_S / once))
    return median(_seconds(work) for _ in range(repeat))


def _nodes(events: list[dict[str, Any]], runs: int) -> list[tuple[str, float]]:
    """Return name and least seconds of each node, over the last ``runs``."""
    kernels = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)]
    executions = sum(e["cat"] == "Session" and e["name"] == "model_run" for e in events)
    each, rest = divmod(len(kernels), executions)
    if rest:
        raise ValueError("the profile does not hold equally many nodes for every run")
    kernels = kernels[-each * runs :]
    return [
        (
            kernels[k]["name"].removesuffix(_SUFFIX),
            min(e["dur"] for e in kernels[k::each]) * 1e-6,
        )
        for k in range(each)
    ]


if __name__ == "__main__":
    serve(Profiler())

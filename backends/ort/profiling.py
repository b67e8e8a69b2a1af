"""Per-node times of a model in a child process of its own.

They are the least of several runs, for what disturbs a run only makes it slower.

`profile` {model, threads, provider, cpus} + feeds -> {nodes}
          nodes: [name, seconds] in the order of execution
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

from irprune.backends.ort.sessions import ERRORS_ONLY
from irprune.backends.ort.worker import Reply, serve
from irprune.protocols import Arrays

_BUDGET_S = 0.25
"""Runs of one model take about this long; at least three, at most ten."""


_SUFFIX = "_kernel_time"


class Profiler:
    """Profiles one model after the other."""

    def profile(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        """Run a model some times under onnxruntime's profiler."""
        if request["cpus"]:
            os.sched_setaffinity(0, request["cpus"])
        with tempfile.TemporaryDirectory() as folder:
            session = _open(request, Path(folder) / "profile")
            session.run(None, feeds)
            start = time.perf_counter()
            session.run(None, feeds)
            once = time.perf_counter() - start
            runs = min(10, max(3, round(_BUDGET_S / max(1e-4, once))))
            for _ in range(runs):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text())
        return {"nodes": _nodes(events, runs)}, {}


def _open(request: dict[str, Any], prefix: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    return ort.InferenceSession(request["model"], options, providers=[request["provider"]])


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

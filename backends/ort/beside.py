"""Plans of a graph beside the whole graph: the time of each node, and whole runs of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from irprune.backends.ort import machine
from irprune.backends.ort.child import Child
from irprune.backends.ort.providers import CPU
from irprune.protocols import Arrays

ROUNDS = 8
WARM_UP = 2


@dataclass(frozen=True)
class Timing:
    """What one plan takes."""

    nodes: list[list[Any]]
    """Name and seconds of each node, in the order of execution."""
    seconds: float
    """Per run, without the profiler."""
    whole: float
    """The same of the whole graph, timed in turns with it."""


class Beside:
    """Holds the whole graph in one process; another one takes a plan after the other.

    That is how a benchmark runs models (`OrtBencher`): on two threads, plans that share a process
    with the whole graph take longer beside it than they do there.

    Args:
        whole: a model file that lives as long as this object.
        feeds: one array per graph input.
        request: threads and provider.
    """

    def __init__(self, whole: Path, feeds: Arrays, request: Mapping[str, Any]) -> None:
        self._feeds, self._request = feeds, dict(request)
        self._file = whole
        self._whole: Child | None = None
        self._plan, self._nodes = Child(), Child("profiling")
        pinned = machine.least_busy(request["threads"]) if request["provider"] == CPU else []
        self._request |= {"cpus": pinned, "optimize": True, "warmup": WARM_UP}

    def close(self) -> None:
        """End the processes."""
        for child in (self._whole, self._plan, self._nodes):
            if child is not None:
                child.close()

    def time(self, plan: Path) -> Timing:
        """Profile a plan and then time it in turns with the whole graph.

        Raises RunnerError where onnxruntime cannot run one of them.
        """
        whole_graph = self._revived()
        nodes = self._send(self._nodes, "profile", plan)["nodes"]
        self._send(self._plan, "load", plan)
        own, whole = [], []
        for _ in range(ROUNDS):
            own.append(self._send(self._plan, "time", plan)["seconds"])
            whole.append(self._send(whole_graph, "time", self._file)["seconds"])
        return Timing(nodes, median(own), median(whole))

    def _revived(self) -> Child:
        """Start the processes that the last plan has ended; return that of the whole graph."""
        if not self._nodes.alive():
            self._nodes = Child("profiling")
        if not self._plan.alive():
            self._plan = Child()
        if self._whole is None or not self._whole.alive():
            child = Child()
            self._send(child, "load", self._file)
            self._whole = child
        return self._whole

    def _send(self, child: Child, op: str, file: Path) -> dict[str, Any]:
        message: dict[str, Any] = {"op": op}
        if op == "time":
            return child.request(message, {}, file=file)[0]
        message |= self._request | {"model": str(file)}
        return child.request(message, self._feeds, file=file)[0]

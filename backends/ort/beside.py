"""Plans of a graph beside the whole graph: the time of each node, and whole runs of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

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

    That is how a benchmark runs models (`OrtBencher`): in one process with it, plans were up to
    5 % slower on two threads.

    Args:
        whole: a model file that lives as long as this object.
        feeds: one array per graph input.
        request: threads and provider.
    """

    def __init__(self, whole: Path, feeds: Arrays, request: Mapping[str, Any]) -> None:
        self._feeds, self._request = feeds, dict(request)
        self._file = whole
        self._whole, self._plan, self._nodes = Child(), Child(), Child("profiling")
        pinned = machine.least_busy(request["threads"]) if request["provider"] == CPU else []
        self._request |= {"cpus": pinned, "optimize": True, "warmup": WARM_UP}
        self._loaded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in (self._whole, self._plan, self._nodes):
            child.close()

    def time(self, plan: Path) -> Timing:
        """Profile a plan and then time it in turns with the whole graph.

        Raises RunnerError where onnxruntime cannot run one of them.
        """
        self._revive()
        if not self._loaded:
            self._send(self._whole, "load", self._file)
            self._loaded = True
        nodes = self._send(self._nodes, "profile", plan)["nodes"]
        self._send(self._plan, "load", plan)
        own, whole = [], []
        for _ in range(ROUNDS):
            own.append(self._send(self._plan, "time", plan)["seconds"])
            whole.append(self._send(self._whole, "time", self._file)["seconds"])
        return Timing(nodes, median(own), median(whole))

    def _revive(self) -> None:
        """Start the processes again that the last plan has ended."""
        if not self._nodes.alive():
            self._nodes = Child("profiling")
        if not self._plan.alive():
            self._plan = Child()
        if not self._whole.alive():
            self._whole, self._loaded = Child(), False

    def _send(self, child: Child, op: str, file: Path) -> dict[str, Any]:
        message: dict[str, Any] = {"op": op}
        if op == "time":
            return child.request(message, {}, file=file)[0]
        message |= self._request | {"model": str(file)}
        return child.request(message, self._feeds, file=file)[0]

"""The child process: answers requests on stdin until stdin ends.

`about` {provider} -> {provider, providers, version}: its full name; an error if it is not there
`run`   {model, optimize, threads, provider, outputs} + feeds -> {} + outputs; the sessions used
        last are kept for the next `run`
`load`  {model, optimize, threads, provider, provider_options?, cpus?, warmup} + feeds ->
        {nodes, note}; holds the session, its inputs and outputs bound, for `time`
`time`  {} -> {seconds}: seconds per run of the held session
`profile` {as `load`, prefix} + feeds -> {trace}: the file of a profile of many runs; the graph
        that ran is beside it as ``<prefix>.onnx``, where onnxruntime can write it
`memory` {} -> {bytes}: peak above the state before `load`

A request that fails is answered by {error}.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from irprune.backends.ort import wire
from irprune.backends.ort.binding import bind, match, ort_value
from irprune.backends.ort.memory import Memory
from irprune.backends.ort.providers import CUDA, TENSORRT, full_name
from irprune.backends.ort.sessions import ERRORS_ONLY, Sessions, open_session, placement
from irprune.protocols import Arrays

MIN_SAMPLE_S = 0.02
"""A sample repeats a fast model for about this long, so that a cold first run weighs little."""

PROFILE_S = 1.0
MIN_PROFILED = 5
"""A profile repeats a model for about this long, and at least so often."""

Reply = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class Worker:
    """Handles requests; `load` keeps one prepared run for `time`."""

    def __init__(self) -> None:
        self._held: Callable[[], object] | None = None
        self._repeat = 1
        self._settle = False
        self._memory: Memory | None = None
        self._sessions = Sessions()

    def about(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        providers = ort.get_available_providers()
        provider = full_name(request["provider"], providers)
        return {"provider": provider, "providers": providers, "version": ort.__version__}, {}

    def run(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        session = self._sessions.get(request)
        names = request["outputs"]
        if names is None:
            names = [output.name for output in session.get_outputs()]
        values = _prepare(session, names, feeds)() if names else []  # [] would mean all
        return {}, {name: _array(name, value) for name, value in zip(names, values, strict=True)}

    def load(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        provider = full_name(request["provider"], ort.get_available_providers())
        on_gpu = provider in (CUDA, TENSORRT)
        number = int(request.get("provider_options", {}).get("device_id", 0))
        self._memory = Memory(number if on_gpu else None)
        if request.get("cpus"):
            os.sched_setaffinity(0, request["cpus"])
        session = open_session(request)
        matched, note = match(session, feeds)
        self._held = bind(session, matched, ("cuda", number) if on_gpu else ("cpu", 0))
        for _ in range(request["warmup"]):
            once = self._seconds()
            self._repeat = max(1, math.ceil(MIN_SAMPLE_S / max(once, 1e-6)))
            self._settle = True
        return {"nodes": placement(session), "note": note}, {}

    def time(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        if self._settle:  # another process has had the caches since
            self._seconds()
        return {"seconds": median(self._seconds() for _ in range(self._repeat))}, {}

    def profile(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        session = open_session(request, request["prefix"])
        matched, _ = match(session, feeds)
        run = _prepare(session, None, matched)
        end = time.perf_counter() + PROFILE_S
        for k in itertools.count():
            if k >= MIN_PROFILED and time.perf_counter() > end:
                break
            run()
        return {"trace": session.end_profiling()}, {}

    def memory(self, request: dict[str, Any], feeds: Arrays) -> Reply:
        return {"bytes": None if self._memory is None else self._memory.peak()}, {}

    def _seconds(self) -> float:
        assert self._held is not None, "load comes before time"
        start = time.perf_counter()
        self._held()
        return time.perf_counter() - start


def _prepare(
    session: ort.InferenceSession, names: Sequence[str] | None, feeds: Arrays
) -> Callable[[], list[Any]]:
    """Return a function that runs the session; bfloat16 needs the detour over OrtValue."""
    ends = (*session.get_inputs(), *session.get_outputs())
    if all(end.type != "tensor(bfloat16)" for end in ends):
        return lambda: session.run(names, feeds)
    values = {name: ort_value(array) for name, array in feeds.items()}
    return lambda: session.run_with_ort_values(names, values)


def _array(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, ort.OrtValue):
        if value.data_type() == "tensor(bfloat16)":
            raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
            return np.ndarray(value.shape(), ml_dtypes.bfloat16, raw)
        value = value.numpy()
    if not isinstance(value, np.ndarray | np.generic):
        raise ValueError(f"output {name} is not a tensor")
    return np.asarray(value)


def serve(worker: object) -> None:
    """Answer what stands on stdin by the methods of `worker` until it ends.

    What native code prints goes to stderr, never into a reply.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when this process ends
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    ort.set_default_logger_severity(ERRORS_ONLY)
    while True:
        try:
            request, feeds = wire.receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply, arrays = getattr(worker, request["op"])(request, feeds)
        except Exception as error:
            reply, arrays = {"error": str(error).strip() or type(error).__name__}, {}
        wire.send(replies, reply, arrays)


if __name__ == "__main__":
    serve(Worker())

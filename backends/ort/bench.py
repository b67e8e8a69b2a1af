"""Latency of models on onnxruntime, measured side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from irprune.backends.ort.child import Child
from irprune.errors import IrpruneError
from irprune.protocols import Arrays, LatencyRow, RunnerError


class OrtBencher:
    """A `Bencher`: one child process per model, all kept alive while the rounds interleave.

    `timeout` is the number of seconds that loading, or one sample, of one model may take.
    """

    def __init__(self, *, timeout: float | None = None) -> None:
        self.timeout = timeout

    def bench(
        self,
        models: Sequence[Path],
        feeds: Arrays,
        *,
        rounds: int = 20,
        warmup: int = 3,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
    ) -> list[LatencyRow]:
        """Return one row per model, in order: each round times A, B, ... with optimisations on.

        A sample is the mean over as many runs as take about 20 ms (one run if `warmup` is 0).

        Raises IrpruneError where the numbers make no sense or onnxruntime is not installed.
        """
        if rounds < 1 or warmup < 0 or threads < 1:
            raise IrpruneError("bench needs rounds >= 1, warmup >= 0 and threads >= 1")
        load = {
            "op": "load",
            "optimize": True,
            "threads": threads,
            "provider": provider,
            "warmup": warmup,
        }
        with ExitStack() as stack:
            lanes = [_Lane(path, stack.enter_context(Child()), self.timeout) for path in models]
            for lane in lanes:
                lane.ask(load | {"model": str(Path(lane.path).absolute())}, feeds)
            for _ in range(rounds):
                for lane in lanes:
                    lane.sample()
        return [lane.row() for lane in lanes]


def ratios(rows: Sequence[LatencyRow]) -> list[float | None]:
    """Return each row's latency relative to the first row: the median of the per-round ratios.

    None for a row with an error, and for every row if the first has one.
    """
    first = rows[0] if rows else None
    return [
        None
        if first is None or first.error or row.error
        else median(b / a for a, b in zip(first.samples_s, row.samples_s, strict=True))
        for row in rows
    ]


class _Lane:
    """One model under measurement; after its first error it stays out."""

    def __init__(self, path: Path, child: Child, timeout: float | None) -> None:
        self.path = path
        self._child = child
        self._timeout = timeout
        self._samples: list[float] = []
        self._error: str | None = None

    def ask(self, message: dict[str, Any], feeds: Arrays) -> dict[str, Any]:
        """Return the reply, {} after an error."""
        if self._error is not None:
            return {}
        try:
            reply, _ = self._child.request(message, feeds, file=self.path, timeout=self._timeout)
        except RunnerError as error:
            self._error = error.reason
            self._child.close()
            return {}
        return reply

    def sample(self) -> None:
        if reply := self.ask({"op": "time"}, {}):
            self._samples.append(reply["seconds"])

    def row(self) -> LatencyRow:
        middle = median(self._samples) if self._error is None else math.nan
        return LatencyRow(str(self.path), middle, tuple(self._samples), self._error)

"""Runs model files on onnxruntime in a child process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from irprune.backends.ort.child import Child
from irprune.protocols import Arrays


class OrtRunner:
    """A `Runner` whose child process serves many requests and is replaced after a crash.

    The first run starts the child.  `close` (or leaving the `with` block, or dropping the last
    reference) ends it; a later run starts another.  Not for use from several threads at once.

    `threads` is the number of intra-op threads, `timeout` the seconds that one run may take.
    """

    def __init__(
        self,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
        *,
        timeout: float | None = None,
    ) -> None:
        self.threads = threads
        self.provider = provider
        self.timeout = timeout
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the child, None before the first run and after `close`."""
        return None if self._child is None else self._child.pid

    def run(
        self,
        model: Path,
        feeds: Arrays,
        outputs: Sequence[str] | None = None,
        *,
        optimize: bool = False,
    ) -> dict[str, NDArray[Any]]:
        """Return the named graph outputs of the model file (None: all), in that order.

        Raises RunnerError with onnxruntime's text, RunnerCrashed if the child dies, IrpruneError
        where onnxruntime is not installed.
        """
        if self._child is None or not self._child.alive():
            self.close()
            self._child = Child()
        message = {
            "op": "run",
            "model": str(Path(model).absolute()),
            "optimize": optimize,
            "threads": self.threads,
            "provider": self.provider,
            "outputs": None if outputs is None else list(outputs),
        }
        _, results = self._child.request(message, feeds, file=model, timeout=self.timeout)
        return results

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

"""One onnxruntime child process, seen from the parent."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from numpy.typing import NDArray

from irprune import errors
from irprune.backends.ort import wire
from irprune.protocols import Arrays, RunnerCrashed, RunnerError

_TAIL_BYTES = 2000


class Child:
    """A running worker.  It serves one request at a time and dies with this object.

    `module` beside this file says what it answers: `worker` or `profiling`.

    Raises IrpruneError where onnxruntime is not installed.
    """

    def __init__(self, module: str = "worker") -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise errors.IrpruneError(
                "onnxruntime is not installed", mend="pip install 'irprune[cpu]'"
            )
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
        )
        self._finalizer = weakref.finalize(self, _end, self._process, self._stderr)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def request(
        self, message: dict[str, Any], arrays: Arrays, *, file: Path, timeout: float | None = None
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Send one request about the model `file` and return the reply; `timeout` in seconds.

        Raises RunnerError for an ordinary error and for a timeout, RunnerCrashed if the process
        dies.  The process is ended by a timeout and by any interruption from outside.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        quiet = self._stderr.seek(0, os.SEEK_END)
        try:
            with _deadline(self._process, timeout) as expired:
                wire.send(self._process.stdin, message, arrays)
                reply, results = wire.receive(self._process.stdout)
            if expired.is_set():
                raise EOFError
        except (EOFError, BrokenPipeError):
            status = self._process.wait()
            self._stderr.seek(max(quiet, self._stderr.seek(0, os.SEEK_END) - _TAIL_BYTES))
            tail = self._stderr.read().decode(errors="replace").strip()
            self.close()
            if expired.is_set():
                raise RunnerError(f"onnxruntime took longer than {timeout} s", file=file) from None
            reason = f"onnxruntime {_fate(status)}" + (f": {tail}" if tail else "")
            raise RunnerCrashed(reason, file=file) from None
        except BaseException:  # an interrupt too: the reply is half read, nothing can follow it
            self.close()
            raise
        if "error" in reply:
            raise RunnerError(reply["error"], file=file)
        return reply, results

    def close(self) -> None:
        """End the process; closing twice is fine."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _environment() -> dict[str, str]:
    """Let the child import what the parent imports, this very package first."""
    package = Path(errors.__file__).parents[1]
    path = os.pathsep.join([str(package), *map(os.path.abspath, sys.path)])
    return os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


@contextlib.contextmanager
def _deadline(process: subprocess.Popen[bytes], timeout: float | None) -> Iterator[threading.Event]:
    """Kill the process after `timeout` seconds and set the event."""
    expired = threading.Event()
    if timeout is None:
        yield expired
        return

    def expire() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(timeout, expire)
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        timer.join()


def _fate(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    return f"was killed by {signal.Signals(-status).name} (signal {-status})"


def _end(process: subprocess.Popen[bytes], stderr: BinaryIO) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, stderr):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # closing flushes what the dead cannot read
            pipe.close()

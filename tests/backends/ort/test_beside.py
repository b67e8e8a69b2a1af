import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from irprune.backends.ort.beside import Beside
from irprune.backends.ort.providers import CPU
from irprune.protocols import RunnerCrashed, RunnerError

Write = Callable[[str, str], Path]

FEEDS = {"x": np.ones((2, 4), np.float32)}
REQUEST = {"threads": 1, "provider": CPU}
NEG = "g (float[N, 4] x) => (float[N, 4] y) {y = Neg(x)}"
TWICE = "g (float[N, 4] x) => (float[N, 4] y) {h = Neg(x) y = Exp(h)}"


def test_nodes_and_whole_runs(write: Write) -> None:
    with closing(Beside(write("whole.onnx", TWICE), FEEDS, REQUEST)) as beside:
        found = beside.time(write("plan.onnx", NEG))
        assert len(found.nodes) == 1
        assert 0 < found.nodes[0][1] < 0.1
        assert found.seconds > 0 and found.whole > 0
        assert len(beside.time(write("plan.onnx", TWICE)).nodes) == 2


@pytest.mark.parametrize("which", ["_whole", "_plan", "_nodes"])
def test_a_process_that_died_is_started_again(write: Write, which: str) -> None:
    whole, plan = write("whole.onnx", TWICE), write("plan.onnx", NEG)
    with closing(Beside(whole, FEEDS, REQUEST)) as beside:
        beside.time(plan)
        child = getattr(beside, which)
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert beside.time(plan).whole > 0
        assert getattr(beside, which).pid != child.pid


def test_a_plan_that_does_not_run_leaves_the_next_alone(write: Write, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with closing(Beside(write("whole.onnx", TWICE), FEEDS, REQUEST)) as beside:
        with pytest.raises(RunnerError):
            beside.time(broken)
        assert beside.time(write("plan.onnx", NEG)).seconds > 0


def test_a_crash_while_a_plan_is_timed(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = write("plan.onnx", NEG)
    with closing(Beside(write("whole.onnx", TWICE), FEEDS, REQUEST)) as beside:
        send = beside._send

        def fatal(child: object, op: str, file: Path) -> object:
            if op == "time":
                os.kill(beside._plan.pid, signal.SIGKILL)
            return send(child, op, file)  # type: ignore[arg-type]

        monkeypatch.setattr(beside, "_send", fatal)
        with pytest.raises(RunnerCrashed):
            beside.time(plan)
        monkeypatch.undo()
        assert beside.time(plan).seconds > 0

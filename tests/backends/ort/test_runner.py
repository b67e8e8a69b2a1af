import importlib.util
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from irprune.backends.ort.runner import OrtRunner
from irprune.errors import IrpruneError
from irprune.protocols import Runner, RunnerCrashed, RunnerError

Write = Callable[[str, str], Path]

ADD = "g (float[N, 2] x, float[2] b) => (float[N, 2] y, float[N, 2] z) {y = Add(x, b) z = Neg(y)}"
ENDLESS = """g (float x) => (float y) {
    trips = Constant<value = int64 {1000000000000}>()
    true = Constant<value = bool {1}>()
    y = Loop(trips, true, x) <body = step (int64 i, bool go, float a) => (bool on, float c) {
        on = Identity(go)
        c = Neg(a)
    }>
}"""
BIAS = np.array([1, 2], np.float32)
SCALAR = np.array(1, np.float32)


@pytest.fixture
def runner() -> Iterator[OrtRunner]:
    with OrtRunner() as runner:
        yield runner


def rows(count: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(2 * count, dtype=np.float32).reshape(count, 2), "b": BIAS}


def start(runner: OrtRunner, path: Path) -> int:
    """Have the child up, so that what happens next happens within a request."""
    runner.run(path, rows(1))
    assert runner.pid is not None
    return runner.pid


@pytest.mark.parametrize("optimize", [False, True])
def test_outputs(runner: Runner, write: Write, optimize: bool) -> None:
    path, feeds = write("add.onnx", ADD), rows(3)
    outputs = runner.run(path, feeds, optimize=optimize)
    assert list(outputs) == ["y", "z"]
    assert np.array_equal(outputs["y"], feeds["x"] + BIAS)
    assert np.array_equal(outputs["z"], -feeds["x"] - BIAS)
    assert list(runner.run(path, feeds, ["z", "y"])) == ["z", "y"]
    assert runner.run(path, feeds, []) == {}


def test_one_child_serves_many_requests_of_any_size(runner: OrtRunner, write: Write) -> None:
    path = write("add.onnx", ADD)
    pid = start(runner, path)
    for count in (0, 1, 2, 70_000):
        assert runner.run(path, rows(count))["y"].shape == (count, 2)
    assert runner.pid == pid


def test_a_rewritten_file_is_read_again(runner: OrtRunner, write: Write) -> None:
    runner.run(write("add.onnx", ADD), rows(2))
    outputs = runner.run(write("add.onnx", ADD.replace("Add", "Sub")), rows(2))
    assert np.array_equal(outputs["y"], rows(2)["x"] - BIAS)


def test_bfloat16_and_text(runner: OrtRunner, write: Write) -> None:
    same = "g (TYPE[N] x) => (TYPE[N] y) {y = Identity(x)}"
    for kind, x in {
        "bfloat16": np.array([1.5, -2], ml_dtypes.bfloat16),
        "float16": np.array([1.5, -2], np.float16),
        "string": np.array(["a", "bc"]),
    }.items():
        y = runner.run(write("same.onnx", same.replace("TYPE", kind)), {"x": x})["y"]
        assert y.dtype.kind == x.dtype.kind
        assert np.array_equal(y, x)


@pytest.mark.parametrize(
    ("feeds", "outputs", "text"),
    [
        (rows(1) | {"b": np.ones(3, np.float32)}, None, "Got: 3 Expected: 2"),
        (rows(1) | {"b": np.ones(2)}, None, "tensor(double)"),
        ({"x": rows(1)["x"]}, None, "'b'"),
        (rows(1), ["nosuch"], "nosuch"),
    ],
    ids=["shape", "dtype", "missing input", "unknown output"],
)
def test_ordinary_errors(
    runner: OrtRunner,
    write: Write,
    feeds: dict[str, np.ndarray],
    outputs: list[str] | None,
    text: str,
) -> None:
    path = write("add.onnx", ADD)
    pid = start(runner, path)
    with pytest.raises(RunnerError) as caught:
        runner.run(path, feeds, outputs)
    assert not isinstance(caught.value, RunnerCrashed)
    assert caught.value.file == path
    assert text in str(caught.value)
    runner.run(path, rows(1))
    assert runner.pid == pid


def test_bad_models(runner: OrtRunner, write: Write, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model")
    with pytest.raises(RunnerError, match="(?i)protobuf"):
        runner.run(garbage, {})
    with pytest.raises(RunnerError, match="(?i)no such file|doesn't exist"):
        runner.run(tmp_path / "absent.onnx", {})
    pair = write("pair.onnx", "g (float[2] x) => (seq(float[2]) y) {y = SequenceConstruct(x, x)}")
    with pytest.raises(RunnerError, match="output y is not a tensor"):
        runner.run(pair, {"x": BIAS})


def test_unknown_provider(write: Write) -> None:
    with OrtRunner(provider="NoSuchProvider") as runner, pytest.raises(RunnerError, match="NoSuch"):
        runner.run(write("add.onnx", ADD), rows(1))


@pytest.mark.parametrize("fatal", [signal.SIGSEGV, signal.SIGKILL, signal.SIGFPE])
def test_native_crash(runner: OrtRunner, write: Write, fatal: signal.Signals) -> None:
    good, endless = write("add.onnx", ADD), write("endless.onnx", ENDLESS)
    pid = start(runner, good)
    threading.Timer(0.2, os.kill, (pid, fatal)).start()
    with pytest.raises(RunnerCrashed) as caught:
        runner.run(endless, {"x": SCALAR})
    assert f"{fatal.name} (signal {fatal.value})" in str(caught.value)
    assert caught.value.file == endless
    assert np.array_equal(runner.run(good, rows(2))["y"], rows(2)["x"] + BIAS)
    assert runner.pid != pid


def test_a_child_that_died_idle_is_replaced(runner: OrtRunner, write: Write) -> None:
    path = write("add.onnx", ADD)
    pid = start(runner, path)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    runner.run(path, rows(1))
    assert runner.pid != pid


def test_crash_message_ends_with_stderr(
    runner: OrtRunner, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "path" / "onnxruntime.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('libfoo.so is missing')")
    monkeypatch.syspath_prepend(broken.parent)
    with pytest.raises(RunnerCrashed, match="exit status 1: .*(\n.*)*libfoo.so is missing"):
        runner.run(write("add.onnx", ADD), rows(1))


def test_timeout(write: Write) -> None:
    with OrtRunner(timeout=4) as runner:
        start(runner, write("add.onnx", ADD))
        with pytest.raises(RunnerError, match="longer than 4 s"):
            runner.run(write("endless.onnx", ENDLESS), {"x": SCALAR})
        runner.run(write("add.onnx", ADD), rows(1))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what it runs in the background deaf to SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interrupt_ends_the_child(runner: OrtRunner, write: Write) -> None:
    pid = start(runner, write("add.onnx", ADD))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run(write("endless.onnx", ENDLESS), {"x": SCALAR})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_dropping_the_runner_ends_the_child(write: Write) -> None:
    runner = OrtRunner()
    pid = start(runner, write("add.onnx", ADD))
    del runner
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_relative_paths(
    runner: OrtRunner, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("add.onnx", ADD)
    start(runner, path)
    monkeypatch.chdir(tmp_path)
    runner.run(Path(path.name), rows(1))


def test_missing_onnxruntime(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IrpruneError) as caught:
        OrtRunner().run(write("add.onnx", ADD), rows(1))
    assert str(caught.value) == "onnxruntime is not installed; pip install 'irprune[cpu]'"

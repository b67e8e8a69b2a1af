from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest

from irprune.backends.ort.binding import bind, match

Write = Callable[[str, str], Path]
TWO = "g (float[2] a, int64[N] b) => (float[2] y) {y = Identity(a)}"
A, B = np.ones(2, np.float32), np.ones(3, np.int64)


def session(write: Write, graph: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(write("m.onnx", graph)), options)


def test_names_decide(write: Write) -> None:
    found, note = match(session(write, TWO), {"b": B, "a": A, "unused": A})
    assert (found["a"] is A, found["b"] is B, len(found), note) == (True, True, 2, "")


def test_positions_decide_where_names_differ(write: Write) -> None:
    found, note = match(session(write, TWO), {"image": A, "length": B})
    assert (found["a"] is A, found["b"] is B) == (True, True)
    assert note == "inputs matched by position: a = image, b = length"


@pytest.mark.parametrize(
    "feeds",
    [
        {"a": A},
        {"image": A},
        {"image": A, "length": B, "more": B},
        {"length": B, "image": A},
        {"a": np.ones(3, np.float32), "b": B},
        {"a": np.ones((2, 1), np.float32), "b": B},
        {"a": A.astype(np.float64), "b": B},
    ],
)
def test_what_does_not_fit(write: Write, feeds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its inputs are a: float.2., b: int64.'N'.; given are"):
        match(session(write, TWO), feeds)


def test_an_input_of_unknown_rank_takes_any(write: Write) -> None:
    found, _ = match(session(write, "g (float x) => (float y) {y = Neg(x)}"), {"x": A})
    assert found["x"] is A


@pytest.mark.parametrize(
    ("graph", "feed"),
    [
        ("g (float[2] x) => (float[2] y) {y = Neg(x)}", A),
        ("g (float[N] x) => (int64[1, M] y) {y = NonZero(x)}", A),
        ("g (float[2] x) => (seq(float[2]) y) {y = SequenceConstruct(x, x)}", A),
        ("g (bfloat16[2] x) => (bfloat16[2] y) {y = Identity(x)}", A.astype(ml_dtypes.bfloat16)),
        ("g (string[2] x) => (string[2] y) {y = Identity(x)}", np.array(["a", "b"])),
    ],
)
def test_every_kind_of_value_runs_again_and_again(
    write: Write, graph: str, feed: np.ndarray[Any, Any]
) -> None:
    run = bind(session(write, graph), {"x": feed}, ("cpu", 0))
    for _ in range(3):
        run()


def test_outputs_reuse_their_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = []
    known = ort.IOBinding.bind_ortvalue_output

    def spy(self: ort.IOBinding, name: str, value: ort.OrtValue) -> None:
        bound.append((name, value))
        known(self, name, value)

    monkeypatch.setattr(ort.IOBinding, "bind_ortvalue_output", spy)
    feed = np.array([1, 2], np.float32)
    run = bind(
        session(write, "g (float[N] x) => (float[N] y) {y = Neg(x)}"), {"x": feed}, ("cpu", 0)
    )
    ((name, value),) = bound
    value.numpy()[:] = 0
    value.update_inplace(np.zeros(2, np.float32))
    run()
    assert (name, value.numpy().tolist()) == ("y", [-1, -2])

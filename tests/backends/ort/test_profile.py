import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from irprune.backends.ort.bench import OrtBencher
from irprune.backends.ort.profile import node_times
from irprune.protocols import NodeTime, RunnerError

Write = Callable[[str, str], Path]

BLOCK = """g (float[1, 16, 8, 8] x, float[16, 16, 3, 3] u, float[16, 16, 3, 3] v)
=> (float[1, 16] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, u)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, v)
    d = Add(c, b)
    e = Relu(d)
    f = GlobalAveragePool(e)
    y = Flatten(f)
}"""
X = {"x": np.ones((1, 16, 8, 8), np.float32)}


@pytest.fixture
def block(write: Write) -> Path:
    """A residual block whose nodes have names, or none for Relu."""
    path = write("block.onnx", BLOCK)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = "" if node.op_type == "Relu" else f"node/{node.output[0]}"
    for value in model.graph.input[1:]:
        array = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del model.graph.input[1:]
    onnx.save(model, path)
    return path


def origins(times: tuple[NodeTime, ...]) -> list[str]:
    return sorted(label for time in times for label in time.nodes)


def test_every_node_of_the_model_is_found_once(block: Path) -> None:
    times = OrtBencher().profile(block, X)
    assert origins(times) == sorted(
        [
            *("b (Relu)", "e (Relu)", "node/a (Conv)", "node/c (Conv)", "node/d (Add)"),
            *("node/f (GlobalAveragePool)", "node/y (Flatten)"),
        ]
    )
    assert all(time.seconds >= 0 and time.provider == "CPUExecutionProvider" for time in times)
    assert [time.seconds for time in times] == sorted((t.seconds for t in times), reverse=True)
    assert all("Reorder" in time.op for time in times if not time.nodes)


def test_bodies_count_in_their_owner(write: Write) -> None:
    loop = """g (float[2] x) => (float[2] y) {
        n = Constant<value = int64 {50}>()
        true = Constant<value = bool {1}>()
        y = Loop(n, true, x) <body = step (int64 i, bool go, float[2] a) => (bool on, float[2] c) {
            on = Identity(go)
            c = Neg(a)
        }>
    }"""
    (time,) = OrtBencher().profile(write("loop", loop), {"x": np.ones(2, np.float32)})
    assert (time.op, time.nodes[-1]) == ("Loop", "y (Loop)")


def test_nodes_without_names(write: Write) -> None:
    text = "g (float[2] x) => (float[2] y) {a = Sin(x)  b = Neg(a)  y = Sin(b)}"
    times = OrtBencher().profile(write("m", text), {"x": np.ones(2, np.float32)})
    assert origins(times) == ["a (Sin)", "b (Neg)", "y (Sin)"]


def event(name: str, op: str, start: int, length: int, **more: Any) -> dict[str, Any]:
    args = {"op_name": op, "provider": "P"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": length, "args": args}


def test_a_trace_alone_goes_by_names(block: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    events = [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 9},
        *(event("node/c", "Conv", 100 * k, 10 + k) for k in range(3)),
        *(event("engine", "TRT", 100 * k + 50, 30) for k in range(3)),
    ]
    trace.write_text(json.dumps(events))
    engine, conv = node_times(block, trace, None)
    assert engine == NodeTime("engine", "TRT", "P", pytest.approx(30e-6), ())
    assert conv == NodeTime("node/c", "Conv", "P", pytest.approx(11e-6), ("node/c (Conv)",))


def test_a_model_that_fails(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(RunnerError, match="(?i)protobuf"):
        OrtBencher().profile(broken, {})

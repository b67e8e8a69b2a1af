import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from irprune.backends.ort.sessions import KEPT, Sessions

Write = Callable[[str, str], Path]

ADD = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {y = Add(x, w)}"
X = np.array([5, 7], np.float32)


def request(path: Path, **settings: Any) -> dict[str, Any]:
    plain = {"optimize": False, "threads": 1, "provider": "CPUExecutionProvider"}
    return plain | settings | {"model": str(path)}


def settle(path: Path, age: float = 10) -> Path:
    """Make the file look as if it had been written `age` seconds ago."""
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def output(sessions: Sessions, path: Path) -> list[float]:
    return list(sessions.get(request(path)).run(None, {"x": X})[0])


@pytest.fixture
def add(write: Write) -> Path:
    return settle(write("add.onnx", ADD))


def test_a_session_is_kept_for_its_settings(add: Path) -> None:
    sessions = Sessions()
    first = sessions.get(request(add))
    assert sessions.get(request(add)) is first
    assert sessions.get(request(add, optimize=True)) is not first
    assert sessions.get(request(add)) is first


def test_no_more_than_two_are_held(write: Write) -> None:
    sessions = Sessions()
    paths = [settle(write(f"{k}.onnx", ADD)) for k in range(4)]
    opened = [sessions.get(request(path)) for path in paths[:KEPT]]
    assert sessions.get(request(paths[0])) is opened[0]
    for path in paths[2:]:
        sessions.get(request(path))
        assert len(sessions) == KEPT
    assert sessions.get(request(paths[2])) is not opened[0]
    assert sessions.get(request(paths[0])) is not opened[0]


def test_the_one_not_used_for_longest_goes_first(write: Write) -> None:
    sessions = Sessions()
    one, two, three = (settle(write(f"{k}.onnx", ADD)) for k in range(3))
    first = sessions.get(request(one))
    second = sessions.get(request(two))
    sessions.get(request(one))
    sessions.get(request(three))
    assert sessions.get(request(one)) is first
    assert sessions.get(request(two)) is not second


def test_a_rewritten_file_is_read_again(add: Path, write: Write) -> None:
    sessions = Sessions()
    assert output(sessions, add) == [6, 9]
    settle(write("add.onnx", ADD.replace("Add", "Sub")), age=5)
    assert output(sessions, add) == [4, 5]


def test_a_session_of_a_fresh_file_is_not_kept(write: Write) -> None:
    sessions = Sessions()
    path = write("add.onnx", ADD)
    sessions.get(request(path))
    assert len(sessions) == 0


def test_a_removed_file_frees_its_session(add: Path, write: Write) -> None:
    sessions = Sessions()
    sessions.get(request(add))
    add.unlink()
    sessions.get(request(settle(write("other.onnx", ADD))))
    assert len(sessions) == 1
    with pytest.raises(FileNotFoundError):
        sessions.get(request(add))


@pytest.mark.parametrize("name", ["weights.bin", "deep/" + "long-name-" * 15 + ".bin"])
def test_rewritten_external_data_is_read_again(add: Path, name: str) -> None:
    sessions = Sessions()
    model = onnx.load(add)
    tensor = model.graph.initializer[0]
    tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
    del tensor.float_data[:]
    data = add.parent / name
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, name)
    tensor.ClearField("raw_data")
    onnx.save(model, add)
    settle(add)
    settle(data)
    assert output(sessions, add) == [6, 9]
    assert len(sessions) == 1
    data.write_bytes(np.array([10, 20], np.float32).tobytes())
    settle(data, age=5)
    assert output(sessions, add) == [15, 27]

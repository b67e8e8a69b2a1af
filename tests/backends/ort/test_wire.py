import io

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from irprune.backends.ort import wire


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3).reshape(()),
        np.zeros((0, 3), np.int64),
        np.arange(12, dtype=np.int16).reshape(3, 4).T,
        np.arange(3, dtype=">f4"),
        np.array([True, False]),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array(["a", "bücher"]),
        np.array(["a", "bücher"], object),
    ],
    ids=["scalar", "empty", "strided", "big-endian", "bool", "bfloat16", "text", "objects"],
)
def test_round_trip(array: NDArray[np.generic]) -> None:
    stream = io.BytesIO()
    wire.send(stream, {"op": "run"}, {"x": array, "file": np.ones(2)})
    stream.seek(0)
    message, arrays = wire.receive(stream)
    assert message == {"op": "run"}
    assert list(arrays) == ["x", "file"]
    assert arrays["x"].shape == array.shape
    assert arrays["x"].dtype.isnative
    assert np.array_equal(arrays["x"], array)


def test_ends() -> None:
    stream = io.BytesIO()
    wire.send(stream, {}, {"x": np.ones(4)})
    for cut in (0, 5, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            wire.receive(io.BytesIO(stream.getvalue()[:cut]))

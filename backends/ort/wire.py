"""Messages between the parent and its onnxruntime children.

A message is one JSON line, then the bytes of its arrays in the order that the line lists them.
"""

from __future__ import annotations

import json
from typing import IO, Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from irprune.protocols import Arrays


def send(stream: IO[bytes], message: dict[str, Any], arrays: Arrays) -> None:
    """Write one message.  Strings travel as fixed-width unicode, all else in native byte order."""
    plain = {name: _plain(array) for name, array in arrays.items()}
    listing = [(name, str(array.dtype), array.shape) for name, array in plain.items()]
    stream.write(json.dumps(message | {"arrays": listing}).encode() + b"\n")
    for array in plain.values():
        stream.write(_bytes(array))
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read one message.  Raises EOFError where the stream ends."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message = json.loads(line)
    arrays = {}
    for name, dtype, shape in message.pop("arrays"):
        arrays[name] = array = np.empty(shape, getattr(ml_dtypes, dtype, dtype))
        if stream.readinto(_bytes(array)) != array.nbytes:  # type: ignore[attr-defined]
            raise EOFError
    return message, arrays


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array)
    dtype = np.dtype(np.str_) if array.dtype == object else array.dtype.newbyteorder("=")
    return np.asarray(array.astype(dtype, copy=False), order="C")


def _bytes(array: NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data

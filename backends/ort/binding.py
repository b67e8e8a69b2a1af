"""Feeds for sessions: matched to the inputs, and bound to memory once for many runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from irprune.protocols import Arrays

_BFLOAT16 = 16

_NAMES = {"float32": "float", "float64": "double"}
"""What onnxruntime calls types that numpy calls otherwise."""


def match(session: ort.InferenceSession, feeds: Arrays) -> tuple[dict[str, NDArray[Any]], str]:
    """Return the feeds under the session's input names, and a note where names differ ("" else).

    Names decide; where some name is missing, positions do, if every type and shape agrees.
    Raises ValueError where neither fits.
    """
    inputs = session.get_inputs()
    if all(value.name in feeds for value in inputs):
        chosen = {value.name: feeds[value.name] for value in inputs}
        unfit = [v.name for v in inputs if not _fits(v, chosen[v.name])]
        note = ""
    else:
        chosen = dict(zip((value.name for value in inputs), feeds.values(), strict=False))
        unfit = [v.name for v in inputs if v.name not in chosen or not _fits(v, chosen[v.name])]
        if len(inputs) != len(feeds):
            unfit = [value.name for value in inputs]
        pairs = ", ".join(f"{new} = {old}" for new, old in zip(chosen, feeds, strict=False))
        note = f"inputs matched by position: {pairs}"
    if unfit:
        wanted = ", ".join(f"{v.name}: {_type(v)}{list(v.shape)}" for v in inputs)
        given = ", ".join(f"{k}: {_kind(a)}{list(a.shape)}" for k, a in feeds.items())
        raise ValueError(f"the feeds do not fit: its inputs are {wanted}; given are {given}")
    return chosen, note


def bind(
    session: ort.InferenceSession, feeds: Arrays, device: tuple[str, int]
) -> Callable[[], object]:
    """Return a function that runs the session with its inputs and outputs on a device.

    The outputs of the first run are the memory of all later ones, so that nothing is allocated or
    copied between host and device while a run is timed. Text cannot be bound and is passed.
    """
    if any(_kind(array) == "string" for array in feeds.values()):
        return lambda: session.run(None, feeds)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort_value(array, *device))
    outputs = [value.name for value in session.get_outputs()]
    for name in outputs:
        binding.bind_output(name, *device)
    session.run_with_iobinding(binding)
    for name, value in zip(outputs, binding.get_outputs(), strict=True):
        if value.is_tensor() and value.data_type() != "tensor(string)":
            binding.bind_ortvalue_output(name, value)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def ort_value(array: NDArray[Any], device: str = "cpu", number: int = 0) -> ort.OrtValue:
    """Return an array as onnxruntime's value; numpy lacks bfloat16, so its bits travel."""
    if array.dtype == ml_dtypes.bfloat16:
        bits = array.view(np.uint16)
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array, device, number)


def _kind(array: NDArray[Any]) -> str:
    if array.dtype.kind in "OUS":
        return "string"
    return _NAMES.get(array.dtype.name, array.dtype.name)


def _type(value: ort.NodeArg) -> str:
    return str(value.type).removeprefix("tensor(").removesuffix(")")


def _fits(value: ort.NodeArg, array: NDArray[Any]) -> bool:
    """Say whether type, rank and known lengths of an input are those of the array.

    onnxruntime describes an input of unknown rank as it does a scalar.
    """
    shape = value.shape or array.shape
    return (
        _type(value) == _kind(array)
        and len(shape) == array.ndim
        and all(not isinstance(d, int) or d == n for d, n in zip(shape, array.shape, strict=True))
    )

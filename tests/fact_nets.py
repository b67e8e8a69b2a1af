"""What the tests of facts share: the check against onnxruntime, and nets with constant channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from strategies import Net, feeds_of, proto_of, run, value_of

from irprune.facts import Facts, Flow
from irprune.model import Model


def check(model: Model, seed: int = 0) -> Flow:
    """Assert that constants and equal slices are what they are said to be; return the facts."""
    flow = Flow(model.ir.graph)
    proto = proto_of(model)
    arrays = run(proto, feeds_of(proto, seed))
    slices: dict[tuple[int, tuple[int, ...]], npt.NDArray[Any]] = {}
    for node in model.ir.graph:
        for value in node.outputs:
            _check_value(value, flow.of(value), arrays[value.name or ""], slices)
    return flow


def _check_value(
    value: ir.Value,
    facts: Facts,
    array: npt.NDArray[Any],
    slices: dict[tuple[int, tuple[int, ...]], npt.NDArray[Any]],
) -> None:
    assert len(facts.shape) == array.ndim
    scale = max(1.0, float(np.abs(np.nan_to_num(array.astype(np.float64))).max(initial=0)))
    for k, n in enumerate(facts.shape):
        assert n in (1, array.shape[k]), f"{value.name}: {facts.shape} of {array.shape}"
    for index in np.ndindex(facts.shape):
        where = tuple(i if facts.tracked(k) else slice(None) for k, i in enumerate(index))
        part = np.asarray(array[where])
        if facts.known[index]:
            assert facts.const.dtype == array.dtype
            np.testing.assert_allclose(part, facts.const[index], 1e-5, 1e-6 * scale)
        other = slices.setdefault((int(facts.number[index]), part.shape), part)
        np.testing.assert_allclose(part, other, 1e-5, 1e-5 * scale, err_msg=str(value.name))


def known(flow: Flow, model: Model, name: str, axis: int = 1) -> dict[int, float]:
    """The constant positions of an axis of a value."""
    value = value_of(model, name)
    facts = flow.of(value).along(axis, value.shape[axis])
    return {int(i): round(float(facts.const[i]), 5) for i in np.flatnonzero(facts.known)}


def equal(flow: Flow, model: Model, name: str, axis: int = 1) -> list[list[int]]:
    """The sets of equal positions of an axis of a value, without positions of their own."""
    value = value_of(model, name)
    number = flow.of(value).along(axis, value.shape[axis]).number
    sets = [np.flatnonzero(number == n).tolist() for n in dict.fromkeys(number.tolist())]
    return [found for found in sets if len(found) > 1]


class Masked(Net):
    """A net with channels 1 constant 0.5, 2 constant 0, 3 constant -1 and 4 equal to 5."""

    def masked(self, batch: Any = 1, channels: int = 6, size: Any = (4, 4)) -> str:
        x = self.input(batch, 2, *size, name="x")
        w = self.random.normal(size=(channels, 2, 1, 1)).astype(np.float32)
        w[1:4] = 0
        b = self.random.normal(size=channels).astype(np.float32)
        b[1:4] = 0.5, 0, -1
        w[5], b[5] = w[4], b[4]
        return self.op("Conv", x, self.constant(w, "p.w"), self.constant(b, "p.b"), name="p")


CONSTANTS = {1: 0.5, 2: 0.0, 3: -1.0}


def facts_of(net: Net, *outputs: str) -> tuple[Flow, Model]:
    model = net.model(*outputs or ("y",))
    return check(model), model

"""Ops that work along some axes: these stay, the others pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

Build = Callable[[Net, str, int], str]
"""Adds the op to a net; along the given axis of a value of rank 3, or along others than 2."""


def _crop(net: Net, x: str, axis: int) -> str:
    return net.op("CenterCropPad", x, net.ints(2), name="c", axes=[axis])


def _top(net: Net, x: str, axis: int) -> str:
    return net.split("TopK", x, net.ints(2), names=["c", "places"], axis=axis)[0]


def _reversed(net: Net, x: str, axis: int) -> str:
    lengths = net.ints(2) if axis == 1 else net.ints(2, 1, 2)
    sites = {"time_axis": axis, "batch_axis": 0} if axis == 1 else {"time_axis": 0, "batch_axis": 1}
    return net.op("ReverseSequence", x, lengths, name="c", **sites)


BUILDS: dict[str, Build] = {
    "CumSum": lambda net, x, axis: net.op("CumSum", x, net.ints(axis), name="c"),
    "TopK": _top,
    "CenterCropPad": _crop,
    "ReverseSequence": _reversed,
    "Compress": lambda net, x, axis: net.op(
        "Compress", x, net.constant(np.array([True, False, True])), name="c", axis=axis
    ),
}


@pytest.mark.parametrize("kind", BUILDS)
@given(width=st.integers(1, 5), seed=seeds)
def test_the_other_axes_stay_exact(kind: str, width: int, seed: int) -> None:
    net = Net(18, seed)
    net.consume(BUILDS[kind](net, net.tokens(width), 1), 3, 2, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 1))[0])


@pytest.mark.parametrize("kind", sorted(set(BUILDS) - {"ReverseSequence"}))
def test_the_axis_stays(kind: str) -> None:
    net = Net(18)
    BUILDS[kind](net, net.tokens(4), 2)
    net.op("ReduceSum", "c", net.ints(2), name="y")
    assert f"is worked along by {kind}" in why(net.model(), "p.w", 1)


def test_a_computed_axis_pins() -> None:
    net = Net()
    net.op("CumSum", net.tokens(4), net.input(name="axis", dtype=TensorProto.INT64), name="y")
    assert why(net.model(), "p.w", 1).startswith("its axes are computed at run time")


@given(width=st.integers(1, 4), batch=batches, seed=seeds)
def test_triangles_and_determinants_stay_exact(width: int, batch: Dim, seed: int) -> None:
    net = Net(seed=seed)
    x = net.image(width, batch, (3, 3))
    net.consume(net.op("Trilu", x, net.constant(np.int64(1)), name="t"), 4, 1, width, "y")
    net.op("MatMul", net.op("Det", x, name="d"), net.weight(width, 2), name="z")
    trial = check_random_plan(net.model("y", "z"), seed, tolerance=1e-4)
    free, rows, columns = ties(trial.model, ("p.w", 0), ("t", 2), ("t", 3))
    assert all(free)
    assert not any(rows + columns)


@pytest.mark.parametrize(("axis", "added"), [(0, 0), (1, 1), (2, 2), (-1, 3)])
def test_one_hot_adds_an_axis_that_stays(axis: int, added: int) -> None:
    net = Net()
    x = net.op("ArgMax", net.image(4, 1, (3, 5)), axis=2, keepdims=0)
    marks = net.constant(np.array([0, 1], np.float32))
    hot = net.op("OneHot", x, net.ints(6), marks, name="c", axis=axis)
    channels = 1 if added > 1 else 2
    net.consume(hot, 4, channels, 4)
    model = net.model()
    assert ties(model, ("c", added), ("c", channels)) == [[0] * 6, [1, 2, 3, 4]]
    for seed in range(3):
        check_random_plan(model, seed)


def test_found_positions_pin() -> None:
    for kind in ("NonZero", "Unique"):
        net = Net()
        net.op(kind, net.tokens(4), name="y")
        assert why(net.model(), "p.w", 1).startswith(f"every position counts for {kind}")
    net = Net()
    net.op("Compress", net.tokens(4), net.constant(np.array([True])), name="y")
    assert why(net.model(), "p.w", 1).startswith("is flattened by Compress")

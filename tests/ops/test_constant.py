"""Constants, ConstantOfShape, Shape and Size: tensors from nothing, and lengths that are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

from irprune.passbase import Context
from irprune.passes.normalize import Normalize


@given(
    dims=st.sampled_from([("C", 1, 1), (1, "C", 1, 1), ("C", 4, 4), (1, "C", 1, 4)]),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([9, 20, 21]),
    seed=seeds,
)
def test_constant_of_shape_shrinks_with_its_peers(
    dims: tuple[int | str, ...], channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    shape = net.ints(*(channels if d == "C" else int(d) for d in dims))
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    ones = net.op("ConstantOfShape", shape, name="k", value=value)
    net.op("Mul", net.image(channels, batch), ones, name="c")
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    free = list(range(1, channels + 1))
    rows = ties(trial.model, ("p.w", 0), ("k", dims.index("C")))
    assert rows[0] == free
    assert channels == 1 or rows[1] == free


@given(channels=st.integers(1, 6), batch=batches, apart=st.booleans(), seed=seeds)
def test_a_shape_that_is_computed_in_part_shrinks_too(
    channels: int, batch: Dim, apart: bool, seed: int
) -> None:
    """The batch is read at run time, the channels are a constant."""
    net = Net(seed=seed)
    x = net.image(channels, batch)
    first = net.op("Gather", net.op("Shape", x), net.ints(0), axis=0)
    ones = net.op("Div", first, first) if apart else net.ints(1)
    shape = net.op("Concat", first, net.ints(channels), net.ints(4), ones, axis=0)
    net.op("Mul", x, net.op("ConstantOfShape", shape, name="k"), name="m")
    net.op("Tile", "m", net.op("Concat", ones, net.ints(2, 1), ones, axis=0), name="c")
    net.consume("c", 4, 1, 2 * channels)
    model = net.model()
    Normalize().run(model, Context())
    trial = check_random_plan(model, seed)
    if channels > 1:
        free = list(range(1, channels + 1))
        sites = ("p.w", 0), ("k", 1), ("c", 1)
        assert ties(trial.model, *sites) == [free, free, [*free, *free]]


def test_a_computed_shape_pins_constant_of_shape() -> None:
    net = Net()
    x = net.image(3, "N")
    net.op("Add", x, net.op("ConstantOfShape", net.op("Shape", x), name="k"), name="c")
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("its length is read by Shape")


def test_a_shape_that_is_an_input_pins_constant_of_shape() -> None:
    net = Net()
    shape = net.input(4, name="s", dtype=7)
    net.op("Add", net.image(3, "N"), net.op("ConstantOfShape", shape, name="k"), name="c")
    net.consume("c", 4, 1, 3)
    assert why(net.model(), "p.w", 0).startswith("meets a dynamic axis")


def test_a_constant_node_stays_whole() -> None:
    net = Net()
    numbers = numpy_helper.from_array(np.ones((3, 1, 1), np.float32))
    net.op("Add", net.image(3), net.op("Constant", name="k", value=numbers), name="c")
    net.consume("c", 4, 1, 3)
    assert "run normalize" in why(net.model(), "p.w", 0)


@pytest.mark.parametrize(
    ("kind", "attributes", "reason"),
    [
        ("Shape", {}, "its length is read by Shape"),
        ("Shape", {"start": 1, "end": 2}, "its length is read by Shape"),
        ("Shape", {"start": -3}, "its length is read by Shape"),
        ("Size", {}, "its number of elements is read by Size"),
    ],
)
def test_a_length_that_someone_reads_stays(
    kind: str, attributes: dict[str, int], reason: str
) -> None:
    net = Net()
    x = net.image(3)
    net.consume(x, 4, 1, 3)
    net.op(kind, x, name="s", **attributes)
    net.op("Cast", "s", name="z", to=helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)))
    assert why(net.model("y", "z"), "p.w", 0).startswith(reason)


@pytest.mark.parametrize(
    ("attributes", "index", "free"),
    [
        ({}, 0, True),
        ({}, 1, False),
        ({}, -3, False),
        ({}, -4, True),
        ({"start": 2}, 0, True),
        ({"start": 1}, 0, False),
        ({"end": -2}, 1, False),
    ],
)
def test_shape_pins_only_the_lengths_that_are_gathered(
    attributes: dict[str, int], index: int, free: bool
) -> None:
    net = Net()
    x = net.image(3, "N")
    net.consume(x, 4, 1, 3)
    net.op("Gather", net.op("Shape", x, **attributes), net.ints(index), name="z")
    assert all(ties(net.model("y", "z"), ("p.w", 0))[0]) == free

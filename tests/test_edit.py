"""Edits that rules ask for: shape inputs keep what is computed and get new constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import TensorProto
from strategies import Net, proto_of, run

from irprune.edit import Edit
from irprune.elements import elements_of
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Plan
from irprune.structure import check


def _net(parts: str) -> Model:
    """A ConstantOfShape whose shape joins constants (c) and parts of an input (d), each of one."""
    net = Net()
    given = net.input(len(parts), name="d", dtype=TensorProto.INT64)
    made = [
        net.op("Gather", given, net.ints(k)) if part == "d" else net.ints(k + 2)
        for k, part in enumerate(parts)
    ]
    shape = net.op("Concat", *made, axis=0, name="shape") if len(made) > 1 else made[0]
    net.op("ConstantOfShape", shape, name="y")
    return net.model()


def _edited(model: Model, lengths: Sequence[int | None]) -> list[str]:
    """Set the shape and return the ops before the last node."""
    node = next(n for n in model.ir.graph if n.op_type == "ConstantOfShape")
    node.outputs[0].shape = None
    Edit(model.ir.graph, Plan()).set_shape_input(node, 0, lengths)
    check(model, Context())
    return [n.op_type for n in model.ir.graph]


@pytest.mark.parametrize(
    ("parts", "lengths", "expected", "gathers"),
    [
        ("dcd", [None, 7, None], (5, 7, 5), 2),
        ("ccd", [7, 8, None], (7, 8, 5), 1),
        ("ccc", [7, 3, 9], (7, 3, 9), 0),
        ("ddd", [None, 4, None], (5, 4, 5), 3),
        ("cdc", [None, None, 9], (2, 5, 9), 1),
        ("d", [None], (5,), 1),
    ],
)
def test_computed_parts_stay_and_constants_are_replaced(
    parts: str, lengths: list[int | None], expected: tuple[int, ...], gathers: int
) -> None:
    model = _net(parts)
    ops = _edited(model, lengths)
    assert ops.count("Gather") == gathers
    feeds = {"d": np.full(len(parts), 5, np.int64)}
    assert run(proto_of(model), feeds)["y"].shape == expected


def test_a_vector_that_is_no_concatenation_is_taken_apart() -> None:
    net = Net()
    net.op("ConstantOfShape", net.input(4, name="d", dtype=TensorProto.INT64), name="y")
    model = net.model()
    ops = _edited(model, [None, None, 3, None])
    assert ops == ["Gather", "Gather", "Concat", "ConstantOfShape"]
    assert run(proto_of(model), {"d": np.full(4, 2, np.int64)})["y"].shape == (2, 2, 3, 2)


def test_what_stays_the_same_is_not_patched() -> None:
    model = _net("cdc")
    assert _edited(model, [2, None, None]) == ["Gather", "Concat", "ConstantOfShape"]


def test_elements_with_a_meaning_of_their_own_stay() -> None:
    net = Net()
    given = net.input(1, name="d", dtype=TensorProto.INT64)
    net.op("Concat", net.ints(-1, 6), given, axis=0, name="shape")
    net.op("Reshape", net.input(4, 3, "T", name="x"), "shape", name="y")
    model = net.model()
    node = next(n for n in model.ir.graph if n.op_type == "Reshape")
    Edit(model.ir.graph, Plan()).set_shape_input(node, 1, [2, 3, None], keep=(-1,))
    assert elements_of(node.inputs[1]) == [-1, 3, None]


def test_elements_of_vectors() -> None:
    net = Net()
    unknown = net.input("K", name="u", dtype=TensorProto.INT64)
    two = net.input(2, name="t", dtype=TensorProto.INT64)
    net.op("Concat", net.ints(4, 5), two, net.ints(6), axis=0, name="c")
    net.op("Concat", "c", unknown, axis=0, name="d")
    values = {v.name: v for node in net.model("c", "d").ir.graph for v in node.outputs}
    assert elements_of(values["c"]) == [4, 5, None, None, 6]
    assert elements_of(values["d"]) is None
    assert elements_of(None) is None

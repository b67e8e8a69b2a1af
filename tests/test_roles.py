"""Which initializers train."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from strategies import Net, value_of

from irprune.errors import IrpruneError
from irprune.roles import (
    BUFFER,
    MADE_OF,
    PARAMETER,
    TRAINED,
    inherit,
    origins,
    predecessors,
    succeed,
    trained,
)


@pytest.mark.parametrize("marked", [False, True])
def test_what_reaches_an_output_trains(marked: bool) -> None:
    net = Net()
    factor = net.op("Identity", net.weight(1, name="factor"))
    x = net.op("MatMul", net.input("N", 2), net.weight(2, 3, name="w"))
    net.op("Mul", net.op("Add", x, net.weight(3, name="b")), factor, name="y")
    net.op("Mul", x, net.weight(3, name="unread"))
    model = net.model()
    if marked:
        model.ir.graph.initializers["w"].metadata_props[PARAMETER] = TRAINED
    assert trained(model.ir) == ({"w"} if marked else {"w", "b"})
    assert "unread" in model.ir.graph.initializers


def test_numbers_make_an_origin_shapes_types_and_conditions_do_not() -> None:
    net = Net()
    w = net.weight(2, 3, name="w")
    size = net.op("Cast", net.op("Shape", net.weight(3, 2, name="shape")), to=1)
    typed = net.op("CastLike", net.weight(2, name="number"), net.weight(1, name="type"))
    above = net.op("Greater", net.weight(2, 1, name="condition"), net.constant(np.float32(0)))
    chosen = net.op("Where", above, net.op("Mul", size, typed), net.weight(2, name="other"))
    net.op("MatMul", net.op("Sub", chosen, net.input("N", 2)), w, name="y")
    model = net.model()
    y, w, other = (value_of(model, name) for name in ("y", "w", "other"))
    assert [v.name for v in origins([None, y])] == ["number", "other", "w"]
    assert [v.name for v in origins([w, y], without={other})] == ["w", "number"]


@pytest.mark.parametrize(
    ("marks", "expected"),
    [([], None), ([None], None), ([BUFFER, None], None), ([None, TRAINED, BUFFER], TRAINED)],
)
def test_one_parameter_makes_the_result_a_parameter(
    marks: list[str | None], expected: str | None
) -> None:
    made, *sources = (ir.Value(name=name) for name in ("made", *map(str, range(len(marks)))))
    for source, mark in zip(sources, marks, strict=True):
        if mark is not None:
            source.metadata_props[PARAMETER] = mark
    inherit(made, sources)
    assert made.metadata_props.get(PARAMETER) == expected


def test_a_successor_knows_all_whose_place_it_took() -> None:
    bias, shift, first, last = (ir.Value(name=n) for n in ("bias", "shift", "first", "last"))
    bias.metadata_props[PARAMETER] = TRAINED
    succeed(first, [bias, shift])
    succeed(last, [first, shift])
    assert predecessors(last) == ["first", "bias", "shift"]
    assert last.metadata_props[PARAMETER] == TRAINED
    alone = ir.Value(name="alone")
    succeed(alone, [])
    assert predecessors(alone) == [] and not alone.metadata_props


@pytest.mark.parametrize("text", ["no json", "7", "[1]", "[" * 100_000])
def test_metadata_that_names_no_predecessors_is_refused(text: str) -> None:
    value = ir.Value(name="bias")
    value.metadata_props[MADE_OF] = text
    with pytest.raises(IrpruneError, match="bias: its metadata irprune.made-of is no list"):
        predecessors(value)

"""Which initializers train."""

from __future__ import annotations

import pytest
from strategies import Net

from irprune.roles import PARAMETER, trained


@pytest.mark.parametrize("marked", [False, True])
def test_what_reaches_an_output_trains(marked: bool) -> None:
    net = Net()
    factor = net.op("Identity", net.weight(1, name="factor"))
    x = net.op("MatMul", net.input("N", 2), net.weight(2, 3, name="w"))
    net.op("Mul", net.op("Add", x, net.weight(3, name="b")), factor, name="y")
    net.op("Mul", x, net.weight(3, name="unread"))
    model = net.model()
    if marked:
        model.ir.graph.initializers["w"].metadata_props[PARAMETER] = "1"
    assert trained(model.ir) == ({"w"} if marked else {"w", "b"})
    assert "unread" in model.ir.graph.initializers

"""Multipliers of rates stay with their weights: in files, through passes, in copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from strategies import Net

import irprune
from irprune import Model
from irprune.errors import IrpruneError
from irprune.multipliers import Multipliers, multipliers


def network() -> Model:
    net = Net(seed=0)
    shared = net.weight(8, name="b")
    x = net.op("Gemm", net.input("N", 6), net.weight(6, 8, name="w"), shared)
    x = net.op("Gemm", net.op("Relu", x), net.weight(8, 8, name="v"), shared, name="second")
    net.op("Gemm", x, net.weight(8, 3), net.weight(3), name="y")
    model = net.model()
    values = model.ir.graph.initializers
    Multipliers(lr=0).note(values["w"])
    Multipliers(lr=2, decay=0).note(values["b"])
    Multipliers().note(values["v"])
    return model


def test_they_go_into_files_and_through_passes(tmp_path: Path) -> None:
    model = network()
    wanted = {"w": Multipliers(lr=0), "b": Multipliers(2, 0)}
    assert multipliers(model.ir.graph) == wanted
    model.save(tmp_path / "net.onnx")
    again = irprune.load(tmp_path / "net.onnx")
    small = irprune.run("normalize, prune{ratio=0.5}, compact", again, verify=False).model
    assert small.tensors()["w"].shape[1] < 8
    (copy,) = small.ir.graph.initializers.keys() - model.ir.graph.initializers.keys()
    assert multipliers(small.ir.graph) == wanted | {copy: wanted["b"]}


def test_notes_that_are_no_numbers_are_named() -> None:
    model = network()
    model.ir.graph.initializers["v"].metadata_props["irprune.lr_mult"] = "fast"
    with pytest.raises(IrpruneError, match=r"^v: its metadata irprune.lr_mult is no number: fast"):
        multipliers(model.ir.graph)

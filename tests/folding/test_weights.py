"""Weights that the graph computes: folded, unless they only move or are dequantised."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from strategies import Net, feeds_of, proto_of, relative_error, run

from irprune.channels import analyse
from irprune.folding.weights import fold_weights
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.shapes import infer


def _standardised(net: Net, weight: str) -> str:
    mean = net.op("ReduceMean", weight, axes=[1, 2, 3])
    centred = net.op("Sub", weight, mean)
    norm = net.op("ReduceL2", centred, axes=[1, 2, 3])
    return net.op("Div", centred, norm, name=f"{weight}.standardised")


def _net(group: int = 1) -> Net:
    """A convolution whose weight is standardised in the graph, between two plain ones."""
    net = Net()
    x = net.image(4, name="a")
    w = _standardised(net, net.weight(4, 4 // group, 3, 3, name="w"))
    net.op("Conv", x, w, name="c", group=group, pads=[1] * 4)
    net.consume("c", 4, 1, 4)
    return net


@pytest.mark.parametrize("group", [1, 2, 4])
def test_a_standardised_weight_becomes_an_initializer(group: int) -> None:
    model = _net(group).model()
    before = proto_of(model)
    Normalize().run(model, Context())
    assert "w.standardised" in model.ir.graph.initializers
    assert [node.op_type for node in model.ir.graph] == ["Conv"] * 3
    after, feeds = proto_of(model), feeds_of(before, 0)
    assert relative_error(run(after, feeds)["y"], run(before, feeds)["y"]) < 1e-6
    channels = analyse(model.ir.graph, tie=True)
    weight = model.ir.graph.initializers["a.w"]
    classes = channels.of(weight)[0]
    assert classes is not None and classes.all()


def test_a_weight_that_is_only_moved_keeps_its_name() -> None:
    net = Net()
    x = net.tokens(4, name="a")
    net.op("MatMul", x, net.op("Transpose", net.weight(3, 4, name="fc.weight")), name="y")
    model = net.model()
    assert fold_weights(model.ir.graph, {}) == 0
    assert "fc.weight" in model.ir.graph.initializers


def test_a_dequantised_weight_stays_quantised() -> None:
    net = Net()
    x = net.tokens(4, name="a")
    weight = net.constant(np.arange(12, dtype=np.int8).reshape(4, 3), "q")
    scale, zero = net.constant(np.float32(0.1)), net.constant(np.int8(1))
    plain = net.op("DequantizeLinear", weight, scale, zero)
    net.op("MatMul", x, net.op("Mul", plain, net.constant(np.float32(2.0))), name="y")
    assert fold_weights(net.model().ir.graph, {}) == 0


def test_what_depends_on_an_input_is_no_weight() -> None:
    net = Net()
    x = net.tokens(4, name="a")
    gate = net.input(1, name="gate")
    net.op("MatMul", x, net.op("Mul", net.weight(4, 3), gate), name="y")
    assert fold_weights(net.model().ir.graph, {}) == 0


def test_what_the_reference_cannot_compute_stays_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> list[np.ndarray]:
        raise NotImplementedError("not here")

    monkeypatch.setattr("irprune.folding.weights.evaluate", refuse)
    model, failures = _net().model(), {}
    assert fold_weights(model.ir.graph, failures) == 0
    assert list(failures.values()) == ["NotImplementedError: not here"]


def test_half_precision_stays_half_precision() -> None:
    net = Net()
    x = net.input(1, 4, 3, 3, dtype=TensorProto.FLOAT16)
    w = net.constant(np.random.default_rng(0).normal(size=(3, 4, 3, 3)).astype(np.float16), "w")
    net.op("Conv", x, _standardised(net, w), name="y")
    model = Model.from_proto(net.proto("y"))
    infer(model.ir)
    assert fold_weights(model.ir.graph, {}) == 1
    folded = model.ir.graph.initializers["w.standardised"]
    assert folded.dtype is not None and folded.dtype.value == onnx.TensorProto.FLOAT16


def test_a_product_of_parameters_alone_keeps_their_names() -> None:
    """A table of positions through an MLP, as in Swin v2."""
    net = Net()
    x = net.tokens(4, name="a")
    hidden = net.op("Relu", net.op("MatMul", net.weight(3, 5, name="table"), net.weight(5, 6)))
    net.op("Add", x, net.op("MatMul", hidden, net.weight(6, 4, name="fc.weight")), name="y")
    model = net.model()
    assert fold_weights(model.ir.graph, {}) == 0
    assert {"table", "fc.weight"} <= set(model.ir.graph.initializers)

"""Weights that the graph computes: folded, unless they only move or are dequantised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from strategies import Net, feeds_of, proto_of, relative_error, run
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from irprune import api, from_torch, load, to_torch
from irprune.channels import analyse
from irprune.folding.weights import fold_weights
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.roles import BUFFER, PARAMETER, TRAINED, Role, roles
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


@pytest.mark.parametrize(
    ("weight", "scale", "role"),
    [
        (TRAINED, None, Role.PARAMETER),
        (BUFFER, TRAINED, Role.PARAMETER),
        (BUFFER, None, Role.CONSTANT),
        (None, None, Role.CONSTANT),
    ],
)
def test_what_is_computed_from_a_parameter_is_one(
    weight: str | None, scale: str | None, role: Role
) -> None:
    net = Net()
    x = net.op("Mul", net.tokens(4, name="a"), net.weight(4, name="trained"))
    half = net.op("Mul", net.weight(4, 3, name="w"), net.constant(np.float32(0.5)))
    net.op("MatMul", x, net.op("Mul", half, net.weight(1, 3, name="s"), name="folded"), name="y")
    model = net.model()
    graph = model.ir.graph
    for name, mark in (("trained", TRAINED), ("w", weight), ("s", scale)):
        if mark is not None:
            graph.initializers[name].metadata_props[PARAMETER] = mark
    Normalize().run(model, Context())
    assert roles(graph)[graph.initializers["folded"]] is role


def test_a_graph_without_marks_gets_none() -> None:
    model = _net().model()
    Normalize().run(model, Context())
    found = roles(model.ir.graph)
    assert found[model.ir.graph.initializers["w.standardised"]] is Role.PARAMETER
    assert not any(value.metadata_props for value in found)


class Standardised(nn.Conv2d):
    """As in ResNetV2 and NFNet: the weight is standardised in every forward."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        w = w / (self.weight.std((1, 2, 3), keepdim=True) + 1e-5)
        return self._conv_forward(x, w, self.bias)


class Parametrised(nn.Module):
    """Weights that are computed from parameters, statistics, and constants that never train."""

    def __init__(self) -> None:
        super().__init__()
        self.a = Standardised(3, 8, 1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.b = weight_norm(nn.Conv2d(8, 8, 1))
        self.c = spectral_norm(nn.Conv2d(8, 8, 1))
        self.fc = nn.Linear(8, 4)
        self.fc.bias.requires_grad_(False)
        self.register_buffer("position", torch.randn(5, 5))
        self.mask = torch.ones(5, 5).tril()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x))) + self.position
        x = torch.relu(self.b(x)) * self.mask
        return self.fc((0.5 * torch.relu(self.c(x))).mean((2, 3)))


def test_reparametrised_layers_of_a_module_train(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    model = from_torch(Parametrised(), (x,))
    small = api.run("normalize, prune{ratio=0.3 scope=local}, compact", model).model
    small.save(path := tmp_path / "small.onnx")
    statistics = {"norm.running_mean", "norm.running_var"}
    for again in (small, load(path)):
        net = to_torch(again).train()
        weights = [name for name, p in net.named_parameters() if p.dim() == 4]
        assert len(weights) == 3
        trains = {*dict(net.named_parameters())}
        kept = {"position", "fc.bias", *statistics}
        assert net.state_dict().keys() - {"norm.num_batches_tracked"} == trains | kept
        assert not trains & kept
        before = {name: again.tensors()[name].numpy() for name in again.ir.graph.initializers}
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        net(x).square().mean().backward()
        optimizer.step()
        again.update_from(net)
        moved = {n for n, was in before.items() if (again.tensors()[n].numpy() != was).any()}
        assert moved - {"norm.num_batches_tracked"} == trains | statistics

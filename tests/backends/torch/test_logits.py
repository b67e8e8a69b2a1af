"""Models that end in a Softmax: what is trained are the logits before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import Net

from irprune.backends.torch import to_torch
from irprune.backends.torch.gradients import TorchDifferentiator
from irprune.backends.torch.logits import before_softmax
from irprune.model import Model


def _classifier(last: str, **attributes: int) -> Model:
    net = Net(seed=3)
    x = net.op("Relu", net.op("Gemm", net.input("N", 6), net.weight(8, 6, name="a"), transB=1))
    x = net.op("Gemm", x, net.weight(4, 8, name="b"), transB=1)
    net.op(last, x, name="y", **attributes)
    return net.model("y")


@pytest.mark.parametrize("attributes", [{}, {"axis": 1}, {"axis": -1}])
def test_the_logits_lie_before_the_softmax(attributes: dict[str, int]) -> None:
    model = _classifier("Softmax", **attributes)
    logits = before_softmax(model)
    x = torch.linspace(-1, 1, 18).reshape(3, 6)
    found, expected = to_torch(logits)(x), to_torch(model)(x)
    assert torch.allclose(found.softmax(1), expected)
    assert not torch.allclose(found, expected)
    assert [node.op_type for node in model.ir.graph][-1] == "Softmax"
    trained = to_torch(logits)
    with torch.no_grad():
        dict(trained.named_parameters())["b"].zero_()
    model.update_from(trained)
    assert torch.allclose(to_torch(model)(x), torch.full((3, 4), 0.25))


@pytest.mark.parametrize(
    ("last", "attributes"), [("Identity", {}), ("LogSoftmax", {}), ("Softmax", {"axis": 0})]
)
def test_other_models_stay_as_they_are(last: str, attributes: dict[str, int]) -> None:
    model = _classifier(last, **attributes)
    assert before_softmax(model) is model


def test_gradients_are_those_of_the_logits() -> None:
    x, y = np.linspace(-1, 1, 18, dtype=np.float32).reshape(3, 6), np.array([0, 3, 1])
    plain, soft = (
        TorchDifferentiator().gradients(_classifier(last), {"x": x}, y, ["b"])
        for last in ("Identity", "Softmax")
    )
    np.testing.assert_allclose(soft["b"][1], plain["b"][1], rtol=1e-6)


def test_probabilities_that_are_read_elsewhere_stay() -> None:
    net = Net(seed=3)
    x = net.op("Gemm", net.input("N", 6), net.weight(4, 6, name="a"), transB=1)
    y = net.op("Softmax", x, name="y")
    net.op("Mul", y, y, name="z")
    model = net.model("y", "z")
    data = torch.linspace(-1, 1, 18).reshape(3, 6)
    logits, found = to_torch(before_softmax(model))(data)
    probabilities, expected = to_torch(model)(data)
    assert torch.allclose(logits.softmax(1), probabilities)
    assert torch.allclose(found, expected)

"""Gated activations are measured as a whole, however they are written; other gates as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from strategies import Net

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.passbase import Context
from irprune.passes.scores.activity import Activity
from irprune.passes.scores.calibration import Samples
from irprune.passes.scores.sites import measured_at

IMAGES = np.random.default_rng(1).normal(size=(4, 3, 6, 6)).astype(np.float32)
Written = Callable[[Net, str], str]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


def _number(net: Net, number: float) -> str:
    return net.constant(np.float32(number))


def _with(net: Net, kind: str, x: str, number: float) -> str:
    return net.op(kind, x, _number(net, number))


def _relu6(net: Net, x: str) -> str:
    return net.op("Clip", _with(net, "Add", x, 3), _number(net, 0), _number(net, 6))


def _hard_swish(net: Net, x: str) -> str:
    return _with(net, "Div", net.op("Mul", x, _relu6(net, x)), 6)


def _hard_swish_of_a_sixth(net: Net, x: str) -> str:
    return net.op("Mul", _with(net, "Mul", _relu6(net, x), 1 / 6), x)


def _softplus(net: Net, x: str) -> str:
    """As torch exports it: what is large stays."""
    beta = net.op("CastLike", _number(net, 1), x)
    soft = net.op("Div", net.op("Softplus", net.op("Mul", x, beta)), beta)
    return net.op("Where", _with(net, "Greater", x, 20), x, soft)


def _mish(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Tanh", _softplus(net, x)))


def _gelu(net: Net, x: str) -> str:
    erf = net.op("Erf", _with(net, "Div", x, 2**0.5))
    return net.op("Mul", _with(net, "Mul", x, 0.5), _with(net, "Add", erf, 1))


def _gelu_by_tanh(net: Net, x: str) -> str:
    cube = _with(net, "Mul", _with(net, "Pow", x, 3), 0.044715)
    tanh = net.op("Tanh", _with(net, "Mul", net.op("Add", x, cube), (2 / np.pi) ** 0.5))
    return _with(net, "Mul", net.op("Mul", x, _with(net, "Add", tanh, 1)), 0.5)


def _swish(net: Net, x: str) -> str:
    return net.op("Mul", x, net.op("Sigmoid", _with(net, "Mul", x, 1.702)))


@pytest.mark.parametrize(
    ("written", "fused"),
    [
        (_hard_swish, lambda net, x: net.op("HardSwish", x)),
        (_hard_swish_of_a_sixth, lambda net, x: net.op("HardSwish", x)),
        (_mish, lambda net, x: net.op("Mish", x)),
        (_gelu, lambda net, x: net.op("Gelu", x)),
        (_gelu_by_tanh, lambda net, x: net.op("Gelu", x, approximate="tanh")),
        (_swish, lambda net, x: net.op("Swish", x, alpha=1.702)),
    ],
)
def test_it_scores_as_the_op_that_fuses_it(
    written: Written, fused: Written, context: Context
) -> None:
    """A filter without weights, whose gate is open, is worth nothing."""
    scores = [_scores(kind, context) for kind in (written, fused)]
    assert np.allclose(*scores, rtol=1e-4, atol=1e-6)
    assert scores[0].argmin() == 3 and scores[0][3] == pytest.approx(0, abs=1e-6)


def _scores(kind: Written, context: Context) -> np.ndarray:
    net = Net(opset=24)
    weights = net.random.normal(size=(5, 3, 3, 3)).astype(np.float32)
    weights[3] = 0
    first = kind(net, net.op("Conv", net.input("N", 3, 6, 6), net.constant(weights)))
    deep = net.op("Conv", first, net.weight(5, 1, 1, 1), group=5)
    net.op("Conv", kind(net, deep), net.weight(4, 5, 3, 3), name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    (group,) = coupled_groups(channels)
    samples = Samples({"x": IMAGES})
    found = Activity(model, channels, [group], "sum-activation", samples, context).of(group)
    assert found is not None
    return found


def _squeezed(net: Net, x: str) -> str:
    """Squeeze-and-excitation of the channels that enter it."""
    squeezed = net.op("GlobalAveragePool", net.op("Relu", x, name="relu"))
    inner = net.op("Relu", net.op("Conv", squeezed, net.weight(2, 4, 1, 1)), name="inner")
    gate = net.op("Sigmoid", net.op("Conv", inner, net.weight(4, 2, 1, 1)), name="gate")
    return net.op("Mul", "relu", gate, name="product")


def _pooled(net: Net, x: str) -> str:
    """A gate of each channel from its own mean."""
    gate = net.op("Sigmoid", net.op("GlobalAveragePool", x))
    return net.op("Mul", x, gate, name="product")


def _halves(net: Net, x: str) -> str:
    """A gated linear unit: one half of the channels gates the other."""
    left, right = net.split("Split", x, names=["l", "r"], axis=1)
    gated = net.op("Mul", left, net.op("Sigmoid", right), name="product")
    return net.op("Concat", gated, gated, axis=1)


def _read_elsewhere(net: Net, x: str) -> str:
    """A gate that goes on by itself too."""
    gate = net.op("Sigmoid", net.op("GlobalAveragePool", x), name="gate")
    return net.op("Add", net.op("Mul", x, gate, name="product"), gate)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        (_squeezed, {"relu", "product", "inner"}),
        (_pooled, {"product"}),
        (_halves, {"product"}),
        (_read_elsewhere, {"gate"}),
    ],
)
def test_gates_made_from_other_values_are_measured_in_what_they_scale(
    written: Written, wanted: set[str]
) -> None:
    net = Net()
    c = net.op("Conv", net.input(1, 3, 6, 6), net.weight(4, 3, 3, 3))
    net.op("Conv", written(net, c), net.weight(4, 4, 3, 3), name="y")
    channels = analyse(net.model().ir.graph)
    groups = coupled_groups(channels)
    assert {site.name for group in groups for site in measured_at(channels, group)} == wanted

"""Element-wise ops: channels pass through, broadcasting ties or keeps them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

from irprune.ops.elementwise import Elementwise

FLOAT, BOOL, INT32, UINT32 = (
    TensorProto.FLOAT,
    TensorProto.BOOL,
    TensorProto.INT32,
    TensorProto.UINT32,
)

# op: first opset, what brings numbers into its domain, attributes
UNARY: dict[str, tuple[int, str, dict[str, Any]]] = {
    "Abs": (8, "", {}),
    "Acos": (8, "Sigmoid", {}),
    "Acosh": (9, "Cosh", {}),
    "Asin": (8, "Sigmoid", {}),
    "Asinh": (9, "", {}),
    "Atan": (8, "", {}),
    "Atanh": (9, "Sigmoid", {}),
    "BitwiseNot": (18, "int", {}),
    "Cast": (9, "", {"to": TensorProto.DOUBLE}),
    "Ceil": (8, "", {}),
    "Celu": (12, "", {"alpha": 0.5}),
    "Cos": (8, "", {}),
    "Cosh": (9, "", {}),
    "Elu": (8, "", {}),
    "Erf": (9, "", {}),
    "Exp": (8, "", {}),
    "Floor": (8, "", {}),
    "Gelu": (20, "", {"approximate": "tanh"}),
    "HardSigmoid": (8, "", {"alpha": 0.3}),
    "HardSwish": (14, "", {}),
    "Identity": (8, "", {}),
    "IsInf": (10, "", {}),
    "IsNaN": (9, "", {}),
    "LeakyRelu": (8, "", {"alpha": 0.1}),
    "Log": (8, "Sigmoid", {}),
    "Mish": (18, "", {}),
    "Neg": (8, "", {}),
    "Not": (8, "bool", {}),
    "Reciprocal": (8, "Sigmoid", {}),
    "Relu": (8, "", {}),
    "Round": (11, "", {}),
    "Selu": (8, "", {}),
    "Shrink": (9, "", {"lambd": 0.2, "bias": 0.1}),
    "Sigmoid": (8, "", {}),
    "Sign": (9, "", {}),
    "Sin": (8, "", {}),
    "Sinh": (9, "", {}),
    "Softplus": (8, "", {}),
    "Softsign": (8, "", {}),
    "Sqrt": (8, "Sigmoid", {}),
    "Swish": (24, "", {}),
    "Tan": (8, "Sigmoid", {}),
    "Tanh": (8, "", {}),
    "ThresholdedRelu": (10, "", {"alpha": 0.2}),
}

# op: first opset, type of its operands, attributes
SEVERAL: dict[str, tuple[int, int, dict[str, Any]]] = {
    "Add": (8, FLOAT, {}),
    "And": (8, BOOL, {}),
    "BitShift": (11, UINT32, {"direction": "RIGHT"}),
    "BitwiseAnd": (18, INT32, {}),
    "BitwiseOr": (18, INT32, {}),
    "BitwiseXor": (18, INT32, {}),
    "Div": (8, FLOAT, {}),
    "Equal": (11, INT32, {}),
    "Greater": (9, FLOAT, {}),
    "GreaterOrEqual": (12, FLOAT, {}),
    "Less": (9, FLOAT, {}),
    "LessOrEqual": (12, FLOAT, {}),
    "Max": (8, FLOAT, {}),
    "Mean": (8, FLOAT, {}),
    "Min": (8, FLOAT, {}),
    "Mod": (10, FLOAT, {"fmod": 1}),
    "Mul": (8, FLOAT, {}),
    "Or": (8, BOOL, {}),
    "Pow": (12, FLOAT, {}),
    "Sub": (8, FLOAT, {}),
    "Sum": (8, FLOAT, {}),
    "Xor": (8, BOOL, {}),
}
# those whose operands are not alike have tests of their own
UNLIKE = {"Clip", "PRelu", "Where"}


def test_every_op_of_the_table_is_tested() -> None:
    assert {*UNARY, *SEVERAL, *UNLIKE} == set(Elementwise.ops)


def _domain(net: Net, x: str, domain: str) -> str:
    """Bring numbers into the domain of an op."""
    if domain in ("", "Cosh", "Sigmoid"):
        return net.op(domain, x) if domain else x
    return net.op("Cast", x, to=BOOL if domain == "bool" else INT32)


@pytest.mark.parametrize("kind", UNARY)
@given(channels=st.integers(1, 6), batch=batches, late=st.booleans(), seed=seeds)
@settings(max_examples=5)
def test_unary_ops_pass_channels_through(
    kind: str, channels: int, batch: Dim, late: bool, seed: int
) -> None:
    since, domain, attributes = UNARY[kind]
    net = Net(max(since, 22) if late else since, seed)
    x = _domain(net, net.image(channels, batch), domain)
    c = net.op(kind, x, name="c", **attributes)
    net.consume(net.op("Cast", c, to=FLOAT), 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    rows = ties(trial.model, ("p.w", 0), ("c", 1))
    assert rows == [list(range(1, channels + 1))] * 2


SHAPES = {
    "scalar": lambda c: (),
    "one": lambda c: (1,),
    "ones": lambda c: (1, 1, 1),
    "channel": lambda c: (c, 1, 1),
    "batched": lambda c: (1, c, 1, 1),
    "wide": lambda c: (4,),
    "whole": lambda c: (c, 4, 4),
}


@pytest.mark.parametrize("kind", SEVERAL)
@given(
    form=st.sampled_from([*SHAPES, "activation", "self", "single"]),
    channels=st.integers(1, 6),
    first=st.booleans(),
    batch=batches,
    late=st.booleans(),
    seed=seeds,
)
@settings(max_examples=10)
def test_ops_of_several_operands_broadcast(
    kind: str, form: str, channels: int, first: bool, batch: Dim, late: bool, seed: int
) -> None:
    since, dtype, attributes = SEVERAL[kind]
    net = Net(22 if late else since, seed)
    image = net.input(batch, 2, 4, 4)
    x = net.op("Softplus", net.conv(image, 2, channels, name="p"))
    if form == "self":
        other = x
    elif form in ("activation", "single"):
        other = net.conv(image, 2, channels if form == "activation" else 1, name="q")
        other = net.op("Softplus", other)
    else:
        other = net.weight(*SHAPES[form](channels), name="k", low=0.5)
    if dtype != FLOAT:
        x, other = net.op("Cast", x, to=dtype), net.op("Cast", other, to=dtype)
    c = net.op(kind, *((other, x) if first else (x, other)), name="c", **attributes)
    net.consume(net.op("Cast", c, to=FLOAT), 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    free = list(range(1, channels + 1))
    assert ties(trial.model, ("p.w", 0), ("c", 1)) == [free] * 2
    if form == "activation":
        assert ties(trial.model, ("p.w", 0), ("q.w", 0)) == [free] * 2
    if form == "channel" and channels > 1:
        assert ties(trial.model, ("p.w", 0), ("k", 0)) == [free] * 2


def test_a_single_channel_that_serves_many_stays() -> None:
    net = Net()
    image = net.input(1, 2, 4, 4)
    gate = net.conv(image, 2, 1, name="gate")
    net.op("Mul", net.conv(image, 2, 3, name="p"), gate, name="c")
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert why(model, "gate.w", 0) == "is broadcast along a longer axis at c.Mul (Mul)"
    assert ties(model, ("p.w", 0)) == [[1, 2, 3]]


@given(
    shape=st.sampled_from(["channel", "one", "ones", "batched", "whole"]),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 9, 16, 22]),
    seed=seeds,
)
def test_prelu_per_channel_and_shared(
    shape: str, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    x = net.image(channels, batch)
    net.op("PRelu", x, net.weight(*SHAPES[shape](channels), name="slope"), name="c")
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    free = list(range(1, channels + 1))
    assert ties(trial.model, ("p.w", 0)) == [free]
    if shape == "channel" and channels > 1:
        assert ties(trial.model, ("slope", 0)) == [free]


@given(channels=st.integers(1, 6), bound=st.sampled_from(["both", "low", "high"]), seed=seeds)
@pytest.mark.parametrize("opset", [8, 11, 13])
def test_clip_by_attribute_and_by_input(opset: int, channels: int, bound: str, seed: int) -> None:
    net = Net(opset, seed)
    low, high = np.float32(-0.3), np.float32(0.4)
    limits = {"min": float(low)} if bound != "high" else {}
    limits |= {"max": float(high)} if bound != "low" else {}
    if opset >= 11:
        inputs = [net.constant(low) if "min" in limits else ""]
        inputs += [net.constant(high)] if "max" in limits else []
        net.op("Clip", net.image(channels), *inputs, name="c")
    else:
        net.op("Clip", net.image(channels), name="c", **limits)
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


@given(
    channels=st.integers(1, 6),
    condition=st.sampled_from([(1,), (4,), "channel"]),
    filler=st.sampled_from(["scalar", "channel", "activation"]),
    opset=st.sampled_from([9, 16]),
    seed=seeds,
)
def test_where_by_channel_and_position(
    channels: int, condition: Any, filler: str, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    image = net.input(2, 2, 4, 4)
    x = net.conv(image, 2, channels, name="p")
    shape = (channels, 1, 1) if condition == "channel" else condition
    chosen = net.constant(net.random.random(shape) < 0.5)
    if filler == "activation":
        other = net.conv(image, 2, channels, name="q")
    else:
        other = net.weight(*SHAPES[filler](channels))
    net.op("Where", chosen, x, other, name="c")
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])


@pytest.mark.parametrize("target", [(), (5,), (3, 1), (1, 1, 1, 1, 2)])
def test_cast_like_takes_a_type_not_a_shape(target: tuple[int, ...]) -> None:
    net = Net(15)
    net.op("CastLike", net.image(4), net.constant(np.zeros(target, np.float64)), name="c")
    net.consume(net.op("Cast", "c", to=FLOAT), 4, 1, 4)
    trial = check_random_plan(net.model(), 1)
    assert ties(trial.model, ("p.w", 0), ("c", 1)) == [[1, 2, 3, 4]] * 2


def test_the_broadcast_of_opset_6_pins() -> None:
    net = Net(6)
    net.op("Add", net.image(3), net.weight(3), name="c", axis=1, broadcast=1)
    net.consume("c", 4, 1, 3)
    assert "one-sided broadcast" in why(net.model(), "p.w", 0)


@given(channels=st.integers(1, 6), opset=st.sampled_from([8, 10, 12, 13, 22]), seed=seeds)
def test_dropout_is_the_identity(channels: int, opset: int, seed: int) -> None:
    net = Net(opset, seed)
    x = net.image(channels)
    ratio = [net.constant(np.float32(0.3))] if opset >= 12 else []
    names = ["c", "mask"] if opset >= 10 else ["c"]
    net.split("Dropout", x, *ratio, names=names)
    net.consume("c", 4, 1, channels)
    trial = check_random_plan(net.model(), seed)
    free = list(range(1, channels + 1))
    assert ties(trial.model, ("p.w", 0), *((n, 1) for n in names)) == [free] * (1 + len(names))

"""Folding into weights: the same function, the names that later passes rely on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irprune import structure
from irprune.errors import IrpruneError
from irprune.frontends.onnx import load
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.fold_batchnorm import FoldBatchNorm
from irprune.passes.normalize import Normalize
from irprune.plan import Plan
from irprune.roles import BUFFER, PARAMETER, TRAINED, Role, roles

Parse = Callable[..., Model]
Same = Callable[..., None]

NORM = "float[4] gamma, float[4] beta, float[4] mean, float[4] var"


def randomised(model: Model) -> Model:
    """Give every initializer random numbers, variances positive ones; shapes become known."""
    rng = np.random.default_rng(0)
    for name, value in model.ir.graph.initializers.items():
        assert value.const_value is not None
        low = 0.5 if name.startswith("var") else -1.0
        numbers = rng.uniform(low, 2.0, value.const_value.shape.numpy())
        value.const_value = ir.tensor(numbers.astype(value.const_value.dtype.numpy()), name=name)
    Normalize().run(model, Context())
    return model


def weights(text: str) -> str:
    """Declare initializers of zeros: `float[4] a, float[2, 3] b`."""
    zeros = []
    for part in text.replace(", float", "; float").split("; "):
        dims = part[part.index("[") + 1 : part.index("]")]
        count = int(np.prod([int(d) for d in dims.split(",")])) if dims else 1
        zeros.append(f"{part} = {{{', '.join(['0'] * count)}}}")
    return f"<{', '.join(zeros)}>"


def fold(model: Model) -> Model:
    """Return the model folded and checked; the given one is left alone."""
    after = model.clone()
    FoldBatchNorm().run(after, Context())
    structure.check(after, Context())
    return after


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


@pytest.mark.parametrize(
    ("layer", "shape", "declared"),
    [
        ("Conv(x, w)", "[N, 3, 5, 5]", "float[4, 3, 3, 3] w"),
        ("Conv(x, w, b)", "[N, 3, 5, 5]", "float[4, 3, 3, 3] w, float[4] b"),
        ("Conv<pads = [1, 1]>(x, w, b)", "[N, 3, 5]", "float[4, 3, 3] w, float[4] b"),
        ("Conv<group = 2>(x, w, b)", "[N, 4, 5, 5]", "float[4, 2, 3, 3] w, float[4] b"),
        ("Conv<group = 2>(x, w)", "[N, 2, 5, 5]", "float[4, 1, 3, 3] w"),
        ("ConvTranspose(x, w)", "[N, 3, 5, 5]", "float[3, 4, 2, 2] w"),
        ("ConvTranspose<group = 2>(x, w, b)", "[N, 6, 5]", "float[6, 2, 2] w, float[4] b"),
        ("ConvTranspose<group = 4>(x, w)", "[N, 4, 5]", "float[4, 1, 2] w"),
        ("Gemm(x, w)", "[N, 3]", "float[3, 4] w"),
        ("Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, w, b)", "[N, 3]",
         "float[4, 3] w, float[4] b"),
        ("Gemm<beta = 3.0>(x, w, b)", "[N, 3]", "float[3, 4] w, float[1, 4] b"),
        ("Gemm(x, w, b)", "[N, 3]", "float[3, 4] w, float[1] b"),
    ],
)  # fmt: skip
def test_batchnorm_folds(parse: Parse, same: Same, layer: str, shape: str, declared: str) -> None:
    rank = "[" + ", ".join("KLMN"[k] for k in range(shape.count(",") + 1)) + "]"
    model = randomised(
        parse(f"""g (float{shape} x) => (float{rank} y)
        {weights(f"{declared}, {NORM}")} {{
        a = {layer}
        n = BatchNormalization<epsilon = 0.01>(a, gamma, beta, mean, var)
        y = Relu(n)
    }}""")
    )
    after = fold(model)
    same(model, after, 1e-6)
    (node, _) = after.ir.graph
    assert ops(after)[1:] == ["Relu"]
    bias = "b" if "b)" in layer else "beta"
    assert [v.name for v in node.inputs if v is not None] == ["x", "w", bias]
    assert node.outputs[0].name == "n"
    assert set(after.ir.graph.initializers) == {"w", bias}
    assert fold(after).ir.graph.num_nodes() == 2


def test_per_channel_mul_and_add_fold(parse: Parse, same: Same) -> None:
    model = randomised(
        parse(f"""g (float[N, 3, 5, 5] x) => (float[N, 4, 3, 3] y)
        {weights("float[4, 3, 3, 3] w, float[1, 4, 1, 1] m, float[4, 1, 1] s, float[1] t")} {{
        a = Conv(x, w)
        b = Mul(m, a)
        c = Add(b, s)
        y = Mul(c, t)
    }}""")
    )
    after = fold(model)
    same(model, after, 1e-6)
    assert ops(after) == ["Conv"]
    (conv,) = after.ir.graph
    assert [v.name for v in conv.inputs if v is not None] == ["x", "w", "s"]
    assert conv.inputs[2] is not None and str(conv.inputs[2].shape) == "[4]"
    assert after.ir.graph.outputs[0] is conv.outputs[0] and conv.outputs[0].name == "y"


@pytest.mark.parametrize(
    "graph",
    [
        # The convolution's output has another reader, or is an output itself.
        "a = Conv(x, w) n = BatchNormalization(a, gamma, beta, mean, var) y = Add(a, n)",
        "z = Conv(x, w) y = BatchNormalization(z, gamma, beta, mean, var)",
        # Its weight serves twice.
        "a = Conv(x, w) n = BatchNormalization(a, gamma, beta, mean, var) b = Conv(x, w)"
        " y = Add(n, b)",
        # Training, and statistics that are computed.
        "a = Conv(x, w) y, m1, v1 = BatchNormalization<training_mode = 1>"
        "(a, gamma, beta, mean, var)",
        "a = Conv(x, w) g2 = Abs(gamma) y = BatchNormalization(a, g2, beta, mean, var)",
        # No constant per channel.
        "a = Conv(x, w) y = Mul(a, a)",
        "a = Conv(x, w) y = Add(a, wide)",
        "a = Conv(x, w) y = Add(a, row)",
        # A layer before, not after.
        "n = BatchNormalization(x, gamma3, gamma3, gamma3, gamma3) y = Conv(n, w)",
    ],
)
def test_what_must_stay_stays(parse: Parse, same: Same, graph: str) -> None:
    outputs = "float[N, 4, 3, 3] y" + (", float[N, 4, 3, 3] z" if "z =" in graph else "")
    declared = "float[4, 3, 3, 3] w, float[3] gamma3, float[1, 4, 3, 3] wide, float[4, 1, 3] row, "
    model = parse(f"""g (float[N, 3, 5, 5] x) => ({outputs})
        {weights(declared + NORM)} {{ {graph} }}""")
    after = fold(randomised(model)) if "training" not in graph else fold(model)
    assert ops(after) == ops(model)
    if "training" not in graph:
        same(model, after)


def test_shared_parameters_are_copied(parse: Parse, same: Same) -> None:
    model = randomised(
        parse(f"""g (float[N, 3, 5, 5] x) => (float[N, 4, 3, 3] y)
        {weights(f"float[4, 3, 3, 3] w, float[4, 3, 3, 3] w2, {NORM}")} {{
        [one] a = Conv(x, w)
        [two] b = BatchNormalization(a, gamma, beta, mean, var)
        [three] c = Conv(x, w2, beta)
        y = Add(b, c)
    }}""")
    )
    for node in model.ir.graph:
        if node.name == "three":
            node.replace_input_with(2, model.ir.graph.initializers["beta"])
    after = fold(model)
    same(model, after, 1e-6)
    assert ops(after) == ["Conv", "Conv", "Add"]
    assert set(after.ir.graph.initializers) == {"w", "w2", "beta", "beta_one"}


@pytest.mark.parametrize(("factor", "expected"), [(300.0, ["Conv", "Mul"]), (0.5, ["Conv"])])
def test_half_precision(parse: Parse, factor: float, expected: list[str]) -> None:
    """What would overflow stays apart; the dtype is kept."""
    model = parse("""g (float16[1, 1, 2] x) => (float16[1, 1, 2] y)
        <float16[1, 1, 1] w = {0}, float16[1] s = {0}> { a = Conv(x, w) y = Mul(a, s) }""")
    for name, numbers in {"w": [[[300.0]]], "s": [factor]}.items():
        value = model.ir.graph.initializers[name]
        value.const_value = ir.tensor(np.array(numbers, np.float16), name=name)
    after = fold(model)
    assert ops(after) == expected
    assert {v.dtype for v in after.ir.graph.initializers.values()} == {ir.DataType.FLOAT16}


@pytest.mark.parametrize(
    ("follower", "trains", "expected"),
    [
        ("BatchNormalization(a, gamma, beta, mean, var)", "gamma", {"w", "beta"}),
        ("BatchNormalization(a, gamma, beta, mean, var)", "beta", {"beta"}),
        ("BatchNormalization(a, gamma, beta, mean, var)", "other", {"other"}),
        ("Mul(a, s)", "s", {"w"}),
        ("Add(a, s)", "s", {"s"}),
        ("Add(a, s)", "w", {"w"}),
    ],
)
def test_what_takes_a_parameter_in_trains(
    parse: Parse, follower: str, trains: str, expected: set[str]
) -> None:
    """Frozen weights and constants train once they hold a product or sum with what does."""
    model = randomised(
        parse(f"""g (float[N, 3, 5, 5] x) => (float[N, 4, 3, 3] y)
        {weights(f"float[4, 3, 3, 3] w, float[1, 4, 1, 1] s, float[1, 4, 1, 1] other, {NORM}")} {{
        a = Conv(x, w)
        n = {follower}
        p = Abs(n)
        y = Add(p, other)
    }}""")
    )
    initializers = model.ir.graph.initializers
    for name in {"w", "mean", "var"} & set(initializers):
        initializers[name].metadata_props[PARAMETER] = BUFFER
    initializers[trains].metadata_props[PARAMETER] = TRAINED
    found = roles(fold(model).ir.graph)
    assert {v.name for v, role in found.items() if role is Role.PARAMETER} == expected


def test_it_stands_before_prune(parse: Parse) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.plan = Plan.empty()
    with pytest.raises(IrpruneError, match="place `fold-batchnorm` before `prune`"):
        FoldBatchNorm().run(model, Context())


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("version-RFB-320", 35),
        ("ch_ppocr_mobile_v2.0_cls_infer", 35),
        ("fsanet-1x1-iter-688590", 14),
        ("gtcrn_simple", 11),
    ],
)
def test_real_models(shared: Path, same: Same, name: str, count: int) -> None:
    model = load(shared / "models" / "onnx" / f"{name}.onnx")
    Normalize().run(model, Context())
    after = model.clone()
    assert FoldBatchNorm().run(after, Context())["BatchNormalization"] == count
    structure.check(after, Context())
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.ir.graph.inputs:
        assert value.shape is not None and value.name is not None
        dims = [d if isinstance(d, int) else 64 for d in value.shape.dims]
        feeds[value.name] = rng.standard_normal(dims).astype(np.float32)
    same(model, after, 1e-5, feeds=feeds)

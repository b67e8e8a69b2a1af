"""The opset matrix: a small network per op at every opset that changed the op's schema.

The opsets come from `onnx.defs`, from the oldest that irprune reads to the newest that both onnx
and onnxruntime know, so a new release of either extends the matrix by itself. Each network goes
through a file: its opset and its IR version are what the pruned file must have, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from lowered import lowered_outputs
from onnx import TensorProto, defs, helper
from strategies import Net, relative_error, run

from irprune import api
from irprune.backends.ort.runner import OrtRunner
from irprune.errors import IrpruneError
from irprune.passbase import Context
from irprune.pipeline.manager import run_passes
from irprune.proof.prover import prove

OLDEST = 7
WIDTH = 16
PIPELINE = "normalize, prune{ratio=0.4 scope=local}, compact"

Part = tuple[str, int, int, int]
"""A value, its rank, the axis of its channels, and their number."""

Builder = Callable[[Net, str], Part]
"""Applies the op to an image of shape (1, WIDTH, 4, 4), made by convolution p."""


@cache
def newest() -> int:
    """The newest opset that both onnx and onnxruntime know."""
    for opset in range(defs.onnx_opset_version(), OLDEST, -1):
        net = Net(opset)
        net.op("Relu", net.input(1), name="y")
        model = net.proto("y")
        model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
        try:
            onnxruntime.InferenceSession(model.SerializeToString())
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            continue
        return opset
    raise AssertionError("onnxruntime runs no opset that onnx knows")


@cache
def _versions() -> dict[str, list[int]]:
    """The opsets that changed each op, oldest first."""
    found: dict[str, set[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.domain:
            found.setdefault(schema.name, set()).add(schema.since_version)
    return {op: sorted(versions) for op, versions in found.items()}


def change_opsets(op: str) -> list[int]:
    """The opsets at which the schema of an op in force is another than before, and the last one."""
    schemas = {
        opset: defs.get_schema(op, opset)
        for opset in (*_versions()[op], OLDEST, newest())
        if OLDEST <= opset <= newest() and defs.has(op, opset)
    }
    return sorted(opset for opset, schema in schemas.items() if not schema.deprecated)


# Element-wise ops


def _unary(op: str, net: Net, x: str, before: str = "", **attributes: Any) -> Part:
    x = net.op(before, x) if before else x
    return net.op(op, x, name="c", **attributes), 4, 1, WIDTH


def _binary(op: str, net: Net, x: str) -> Part:
    """Before opset 8 the n-ary ops do not broadcast."""
    shape = (WIDTH, 1, 1) if net.opset > 7 else (1, WIDTH, 4, 4)
    return net.op(op, x, net.weight(*shape, name="k", low=0.5), name="c"), 4, 1, WIDTH


def _compare(op: str, net: Net, x: str) -> Part:
    made = net.op(op, x, net.weight(WIDTH, 1, 1, low=-0.5), name="c")
    return net.op("Cast", made, to=TensorProto.FLOAT), 4, 1, WIDTH


def _logic(op: str, net: Net, x: str) -> Part:
    left = net.op("Greater", x, net.constant(np.float32(0)))
    right = net.op("Greater", x, net.weight(WIDTH, 1, 1, low=-0.5))
    made = net.op(op, *([left] if op == "Not" else [left, right]), name="c")
    return net.op("Cast", made, to=TensorProto.FLOAT), 4, 1, WIDTH


def _clip(net: Net, x: str) -> Part:
    if net.opset < 11:
        return net.op("Clip", x, name="c", min=-0.5, max=1.5), 4, 1, WIDTH
    limits = [net.constant(np.float32(n)) for n in (-0.5, 1.5)]
    return net.op("Clip", x, *limits, name="c"), 4, 1, WIDTH


def _dropout(net: Net, x: str) -> Part:
    if net.opset < 12:
        return net.op("Dropout", x, name="c", ratio=0.3), 4, 1, WIDTH
    return net.op("Dropout", x, net.constant(np.float32(0.3)), name="c"), 4, 1, WIDTH


def _where(net: Net, x: str) -> Part:
    chosen = net.op("Greater", x, net.constant(np.float32(0)))
    return net.op("Where", chosen, x, net.weight(1, WIDTH, 1, 1), name="c"), 4, 1, WIDTH


# Ops that move positions


def _concat(net: Net, x: str) -> Part:
    other = net.op("Neg", net.op("Relu", x))
    return net.op("Concat", x, other, name="c", axis=1 if net.opset < 11 else -3), 4, 1, 2 * WIDTH


def _split(net: Net, x: str) -> Part:
    """Two parts change places."""
    names, sizes = ("c", "d"), [6, WIDTH - 6]
    if net.opset >= 18:
        net.split("Split", x, names=names, axis=-3, num_outputs=2)
    elif net.opset >= 13:
        net.split("Split", x, net.ints(*sizes), names=names, axis=1)
    else:
        net.split("Split", x, names=names, axis=1, split=sizes)
    return net.op("Concat", "d", "c", axis=1), 4, 1, WIDTH


def _slice(net: Net, x: str) -> Part:
    bounds = {"starts": [1, 0], "ends": [-1, 2**31 - 1], "axes": [1, 3]}
    if net.opset < 10:
        return net.op("Slice", x, name="c", **bounds), 4, 1, WIDTH - 2
    inputs = [net.ints(*numbers) for numbers in bounds.values()]
    return net.op("Slice", x, *inputs, net.ints(1, 1), name="c"), 4, 1, WIDTH - 2


def _pad(net: Net, x: str) -> Part:
    if net.opset < 11:
        pads = [0, 1, 1, 1, 0, 2, 1, 1]
        return net.op("Pad", x, name="c", pads=pads, value=0.5), 4, 1, WIDTH + 3
    inputs = [net.ints(1, 0, 2, 1), net.constant(np.float32(0.5)), net.ints(1, -1)]
    if net.opset < 18:
        inputs = [net.ints(0, 1, 1, 1, 0, 2, 1, 1), inputs[1]]
    return net.op("Pad", x, *inputs, name="c"), 4, 1, WIDTH + 3


def _reshape(net: Net, x: str) -> Part:
    allowed = {"allowzero": 1} if net.opset >= 14 else {}
    shape = net.ints(1, 2, WIDTH // 2, 16) if allowed else net.ints(0, 2, WIDTH // 2, -1)
    return net.op("Reshape", x, shape, name="c", **allowed), 4, 2, WIDTH // 2


def _flatten(net: Net, x: str) -> Part:
    pooled = net.op("GlobalAveragePool", x)
    return net.op("Flatten", pooled, name="c", axis=1 if net.opset < 11 else -3), 2, 1, WIDTH


def _squeeze(net: Net, x: str) -> Part:
    pooled = net.op("GlobalAveragePool", x)
    axes = [2, 3] if net.opset < 11 else [-1, 2]
    return net.axes_op("Squeeze", pooled, axes, 13, name="c"), 2, 1, WIDTH


def _unsqueeze(net: Net, x: str) -> Part:
    axes = [2] if net.opset < 11 else [-3]
    return net.axes_op("Unsqueeze", x, axes, 13, name="c"), 5, 1, WIDTH


def _expand(net: Net, x: str) -> Part:
    return net.op("Expand", x, net.ints(2, 1, 1, 1, 1), name="c"), 5, 2, WIDTH


def _gather(net: Net, x: str) -> Part:
    return net.op("Gather", x, net.ints(*range(WIDTH)[::-1]), name="c", axis=1), 4, 1, WIDTH


def _constant_of_shape(net: Net, x: str) -> Part:
    three = helper.make_tensor("value", TensorProto.FLOAT, [1], [3])
    made = net.op("ConstantOfShape", net.ints(1, WIDTH, 1, 1), name="k", value=three)
    return net.op("Mul", x, made, name="c"), 4, 1, WIDTH


def _shape(net: Net, x: str) -> Part:
    """A view by a computed shape: batch and channels are read, the rest is -1."""
    first = net.op("Slice", net.op("Shape", x), net.ints(0), net.ints(2)) if net.opset > 9 else ""
    first = first or net.op("Slice", net.op("Shape", x), starts=[0], ends=[2])
    shape = net.op("Concat", first, net.ints(-1), axis=0)
    return net.op("Reshape", x, shape, name="c"), 3, 1, WIDTH


def _resize(net: Net, x: str) -> Part:
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    if net.opset < 11:
        return net.op("Resize", x, scales, name="c", mode="linear"), 4, 1, WIDTH
    empty = net.constant(np.zeros(0, np.float32))
    sizes = net.ints(1, WIDTH, 7, 9)
    return net.op("Resize", x, empty, empty, sizes, name="c", mode="linear"), 4, 1, WIDTH


def _upsample(net: Net, x: str) -> Part:
    scales = [1.0, 1.0, 2.0, 2.0]
    if net.opset < 9:
        return net.op("Upsample", x, name="c", scales=scales, mode="nearest"), 4, 1, WIDTH
    given = net.constant(np.array(scales, np.float32))
    return net.op("Upsample", x, given, name="c", mode="nearest"), 4, 1, WIDTH


# Ops that sum or normalise


def _conv(net: Net, x: str, **attributes: Any) -> Part:
    return net.conv(x, WIDTH, 6, 3, 3, name="c", pads=[1] * 4, **attributes), 4, 1, 6


def _conv_transpose(net: Net, x: str) -> Part:
    w = net.weight(WIDTH, 6, 2, 2, name="c.w")
    return net.op("ConvTranspose", x, w, name="c", strides=[2, 2]), 4, 1, 6


def _matmul(net: Net, x: str) -> Part:
    last = net.op("Transpose", x, perm=[0, 2, 3, 1])
    return net.linear(last, WIDTH, 6, name="c"), 4, 3, 6


def _gemm(net: Net, x: str) -> Part:
    flat = net.op("Flatten", net.op("GlobalAveragePool", x))
    inputs = [net.weight(6, WIDTH, name="c.w")]
    inputs += [net.weight(6, name="c.b")] if net.opset < 11 else []
    return net.op("Gemm", flat, *inputs, name="c", transB=1), 2, 1, 6


def _batch_norm(net: Net, x: str) -> Part:
    parts = [net.weight(WIDTH, low=low) for low in (0.5, -0.5, -0.5, 0.5)]
    spatial = {"spatial": 1} if net.opset < 9 else {}
    return net.op("BatchNormalization", x, *parts, name="c", **spatial), 4, 1, WIDTH


def _instance_norm(net: Net, x: str) -> Part:
    parts = [net.weight(WIDTH, low=low) for low in (0.5, -0.5)]
    return net.op("InstanceNormalization", x, *parts, name="c"), 4, 1, WIDTH


def _pool(op: str, net: Net, x: str) -> Part:
    more: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [1, 1]}
    if op == "AveragePool":
        more |= {"count_include_pad": 1, "pads": [1, 1, 0, 0]}
    if net.opset >= 10 and op != "LpPool":
        more["ceil_mode"] = 1
    if net.opset >= (10 if op == "MaxPool" else 19) and op != "LpPool":
        more["dilations"] = [2, 2]
    return net.op(op, x, name="c", **more), 4, 1, WIDTH


def _reduce(op: str, net: Net, x: str) -> Part:
    axes = [2, 3] if net.opset < 11 else [-1, 2]
    x = net.op("Exp", x) if "Log" in op else x
    return net.axes_op(op, x, axes, 13 if op == "ReduceSum" else 18, name="c"), 4, 1, WIDTH


def _softmax(op: str, net: Net, x: str) -> Part:
    return net.op(op, x, name="c", axis=3), 4, 1, WIDTH


_PLAIN = """
    Abs Asinh Atan Ceil Cos Cosh Elu Erf Exp Floor GlobalAveragePool GlobalMaxPool HardSigmoid
    HardSwish Identity LeakyRelu Mish Neg Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign
    Tan Tanh ThresholdedRelu Gelu Celu
"""

CASES: dict[str, Builder] = {
    **{op: partial(_unary, op) for op in _PLAIN.split()},
    **{op: partial(_unary, op, before="Sigmoid") for op in ("Acos", "Asin", "Atanh", "Log")},
    **{op: partial(_unary, op, before="Sigmoid") for op in ("Reciprocal", "Sqrt")},
    "Acosh": lambda net, x: _unary("Acosh", net, net.op("Exp", net.op("Abs", x))),
    "Cast": partial(_unary, "Cast", to=TensorProto.FLOAT),
    "Shrink": partial(_unary, "Shrink", lambd=0.3, bias=0.1),
    "Transpose": lambda net, x: (net.op("Transpose", x, name="c", perm=[0, 2, 3, 1]), 4, 3, WIDTH),
    "DepthToSpace": lambda net, x: (
        net.op("DepthToSpace", x, name="c", blocksize=2),
        4,
        1,
        WIDTH // 4,
    ),
    "SpaceToDepth": lambda net, x: (
        (net.op("SpaceToDepth", x, name="c", blocksize=2), 4, 1, 4 * WIDTH)
    ),
    "Tile": lambda net, x: (net.op("Tile", x, net.ints(1, 2, 1, 1), name="c"), 4, 1, 2 * WIDTH),
    **{
        op: partial(_binary, op) for op in ("Add", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum")
    },
    "PRelu": partial(_binary, "PRelu"),
    "Pow": lambda net, x: _binary("Pow", net, net.op("Sigmoid", x)),
    **{op: partial(_compare, op) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    **{op: partial(_logic, op) for op in ("And", "Not", "Or", "Xor")},
    "Clip": _clip,
    "Dropout": _dropout,
    "Where": _where,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Gather": _gather,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    "Resize": _resize,
    "Upsample": _upsample,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    **{op: partial(_pool, op) for op in ("AveragePool", "LpPool", "MaxPool")},
    **{op: partial(_reduce, op) for op in _versions() if op.startswith("Reduce")},
    **{op: partial(_softmax, op) for op in ("Hardmax", "LogSoftmax", "Softmax")},
}

MATRIX = [(op, opset) for op in sorted(CASES) for opset in change_opsets(op)]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


def _write(op: str, opset: int, path: Path) -> onnx.ModelProto:
    """Write the network of an op; before IR 4 weights must be graph inputs too."""
    net = Net(opset, seed=3)
    value, rank, axis, length = CASES[op](net, net.image(WIDTH))
    net.consume(value, rank, axis, length)
    model = net.proto("y")
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    for weight in model.graph.initializer if model.ir_version < 4 else ():
        info = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.append(info)
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(("op", "opset"), MATRIX, ids=[f"{op}-{n}" for op, n in MATRIX])
def test_the_op_is_pruned_and_proved(op: str, opset: int, tmp_path: Path, context: Context) -> None:
    written = _write(op, opset, tmp_path / "model.onnx")
    model = api.load(tmp_path / "model.onnx")
    run_passes(api.resolve_pipeline(PIPELINE), model, context)
    assert model.base is not None and model.plan is not None
    assert model.plan.axes["p.w"].keys() == {0} and "y.w" in model.plan.axes
    for node in model.ir.graph:  # Identity and Dropout are gone
        tensors = [v.name for v in (*node.inputs, *node.outputs) if v is not None]
        assert node.op_type != op or model.plan.axes.keys() & set(tensors)
    proof = prove(model.base, model.ir, model.plan, context)
    assert proof.verdict == "proved", proof

    model.save(tmp_path / "small.onnx")
    small = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(small, full_check=True)
    assert small.ir_version == written.ir_version
    assert list(small.opset_import) == list(written.opset_import)


@pytest.mark.parametrize(("op", "opset"), MATRIX, ids=[f"{op}-{n}" for op, n in MATRIX])
def test_the_op_is_lowered(op: str, opset: int, tmp_path: Path) -> None:
    written = _write(op, opset, tmp_path / "model.onnx")
    image = {"p.x": np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)}
    model = api.load(tmp_path / "model.onnx")
    if op == "AveragePool" and opset >= 19:  # dilated: torch has no such layer
        with pytest.raises(IrpruneError, match="its dilations are"):
            lowered_outputs(model, written, image)
        return
    found = lowered_outputs(model, written, image)
    assert relative_error(found["y"], run(written, image)["y"]) <= 2e-5


def test_the_matrix_reaches_the_newest_opset() -> None:
    assert newest() >= 26
    assert {opset for _, opset in MATRIX} >= {7, 8, 9, 10, 11, 12, 13, 14, newest()}

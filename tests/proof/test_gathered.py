"""Inexact ops in the masked reference: what it computes and refuses, and what a proof notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from mutations import numbers, store, swapped
from norm_nets import NormNet
from strategies import compacted, proto_of, random_keep, run

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Balanced, Plan
from irprune.proof import agreement
from irprune.proof.compare import Comparison, Errors
from irprune.proof.prover import Proof, prove
from irprune.proof.reference import masked_reference
from irprune.shapes import infer

Array = npt.NDArray[np.float32]

KEPT = np.array([True, False, True, True, True, False])
"""Two of the first three positions, and two of the others."""
FRONT = np.arange(6) < 4


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


# What the reference computes


def _normal(x: Array, *axes: int) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return _rms(centred, *axes)


def _rms(x: Array, *axes: int) -> Array:
    result: Array = x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-5)
    return result


def _softmax(x: Array, axis: int) -> Array:
    result: Array = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
    return result


def _lrn(x: Array) -> Array:
    padded = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    result: Array = x / (1 + total / 3) ** 0.75
    return result


def _groups(x: Array, scale: Array, bias: Array) -> Array:
    rows = _normal(x.reshape(len(x), 2, -1), 2).reshape(x.shape)
    result: Array = rows * scale[:, None] + bias[:, None]
    return result


def _unit(x: Array) -> Array:
    result: Array = x / np.sqrt((x**2).sum(1, keepdims=True))
    return result


CASES: list[tuple[str, int, int, dict[str, object], int, Callable[..., Array]]] = [
    ("LayerNormalization", 17, 2, {}, 2, lambda x, s, b: _normal(x, 2) * s + b),
    ("RMSNormalization", 23, 2, {}, 1, lambda x, s: _rms(x, 2) * s),
    ("GroupNormalization", 21, 1, {"num_groups": 2}, 2, _groups),
    ("LpNormalization", 9, 1, {"axis": 1}, 0, _unit),
    ("MeanVarianceNormalization", 13, 1, {"axes": [0, 1]}, 0, lambda x: _normal(x, 0, 1)),
    ("Softmax", 17, 1, {"axis": 1}, 0, lambda x: _softmax(x, 1)),
    ("LogSoftmax", 13, 2, {}, 0, lambda x: np.log(_softmax(x, 2))),
    ("LRN", 8, 1, {"size": 3, "alpha": 1.0}, 0, _lrn),
    ("LRN", 13, 1, {"size": 3, "alpha": 1.0}, 0, _lrn),
]


@pytest.mark.parametrize(
    ("kind", "opset", "axis", "attributes", "parameters", "expected"),
    CASES,
    ids=lambda value: str(value) if isinstance(value, str | int) else "",
)
def test_an_op_sees_kept_positions_alone(
    kind: str,
    opset: int,
    axis: int,
    attributes: dict[str, object],
    parameters: int,
    expected: Callable[..., Array],
) -> None:
    net = NormNet(opset)
    shape = [2, 5, 5, 3] if kind == "LRN" else [2, 5, 5]
    shape[axis] = 6
    net.op("Neg", net.input(*shape), name="a")
    names = [net.weight(6, name=f"c.{k}") for k in range(parameters)]
    net.op("Relu", net.op(kind, "a", *names, name="c", **attributes), name="y")
    model = net.model()
    plan = Plan({"a": {axis: KEPT}, **{n: {0: KEPT} for n in names}, "c": {axis: KEPT}})
    x = net.random.normal(size=shape).astype(np.float32)
    dropped = [slice(None)] * len(shape)
    dropped[axis] = np.flatnonzero(~KEPT)  # type: ignore[call-overload]
    x[tuple(dropped)] = np.nan
    found = run(proto_of(Model.from_ir(masked_reference(model.ir, plan))), {"x": x})["c"]
    weights = [numbers(model.ir.graph.initializers[name])[KEPT] for name in names]
    wanted = expected(np.compress(KEPT, -x, axis), *weights)
    np.testing.assert_allclose(np.compress(KEPT, found, axis), wanted, rtol=2e-3, atol=1e-5)
    assert not np.compress(~KEPT, found, axis).any()


def test_a_reduction_sees_kept_positions_alone() -> None:
    net = NormNet(13)
    net.op("Neg", net.input(2, 6, 5), name="a")
    net.op("ReduceMax", "a", name="y", axes=[1, 2], keepdims=0)
    rows = np.array([True, False, True, True, False])
    plan = Plan({"a": {1: KEPT, 2: rows}})
    x = net.random.normal(size=(2, 6, 5)).astype(np.float32)
    found = run(proto_of(Model.from_ir(masked_reference(net.model().ir, plan))), {"x": x})
    np.testing.assert_array_equal(found["y"], -x[:, KEPT][:, :, rows].min((1, 2)))


def test_one_gather_serves_all_statistics_of_a_tensor() -> None:
    net = NormNet(13)
    net.op("Neg", net.input(2, 6), name="a")
    means = [net.op(kind, "a", axes=[1]) for kind in ("ReduceMean", "ReduceMax")]
    net.op("Add", *means, name="y")
    reference = masked_reference(net.model().ir, Plan({"a": {1: KEPT}}))
    kinds = [node.op_type for node in reference.graph]
    assert kinds == ["Neg", "Gather", "ReduceMean", "ReduceMax", "Add"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": {}}, "different positions of a and scale"),
        ({"a": {}}, "different positions of a and scale"),
        ({"c": {1: ~KEPT}}, "different positions of a and c"),
        (
            {"a": {1: FRONT}, "scale": {0: FRONT}, "bias": {0: FRONT}, "c": {1: FRONT}},
            "more positions of one group of a than of another",
        ),
    ],
)
def test_torn_plans_are_refused(change: dict[str, dict[int, Array]], message: str) -> None:
    net = NormNet(21)
    net.op("Neg", net.input(2, 6, 5), name="a")
    scale, bias = net.weight(6, name="scale"), net.weight(6, name="bias")
    x = net.op("GroupNormalization", "a", scale, bias, name="c", num_groups=2)
    net.op("Relu", x, name="y")
    axes = {"a": {1: KEPT}, "scale": {0: KEPT}, "bias": {0: KEPT}, "c": {1: KEPT}}
    masked_reference(net.model().ir, Plan(axes))
    with pytest.raises(IrpruneError, match=f"c.GroupNormalization .*{message}"):
        masked_reference(net.model().ir, Plan({**axes, **change}))


def test_what_rows_share_must_keep_the_same() -> None:
    """Rows of a statistic are gathered one by one, but not what they have in common."""
    net = NormNet(23)
    net.op("Neg", net.input(2, 3, 6), name="a")
    net.op("Relu", net.op("RMSNormalization", "a", net.weight(6, name="scale"), name="c"), name="y")
    kept = Balanced((1,), np.array([KEPT, FRONT, KEPT]))
    plan = Plan({"a": {2: kept}, "scale": {0: KEPT}, "c": {2: kept}})
    with pytest.raises(IrpruneError, match="different positions of a and scale"):
        masked_reference(net.model().ir, plan)
    net = NormNet(13)
    net.op("Neg", net.input(2, 3, 6), name="a")
    net.op("ReduceMax", "a", name="y", axes=[1, 2], keepdims=0)
    with pytest.raises(IrpruneError, match="different positions per row .* one statistic over"):
        masked_reference(net.model().ir, Plan({"a": {2: kept}}))


def test_every_row_of_a_statistic_is_gathered_by_itself() -> None:
    net = NormNet(13)
    net.op("Neg", net.input("N", 3, 6), name="a")
    net.op("Relu", net.op("LpNormalization", "a", name="c"), name="y")
    rows = np.array([KEPT, FRONT, ~FRONT | (np.arange(6) < 2)])
    plan = Plan({name: {2: Balanced((1,), rows)} for name in "ac"})
    x = net.random.normal(size=(2, 3, 6)).astype(np.float32)
    found = run(proto_of(Model.from_ir(masked_reference(net.model().ir, plan))), {"x": x})["c"]
    for row, kept in enumerate(rows):
        part = -x[:, row, kept]
        wanted = part / np.linalg.norm(part, axis=1, keepdims=True)
        np.testing.assert_allclose(found[:, row, kept], wanted, rtol=1e-5)
    assert not found[:, ~rows].any()


# What the proof notices


def _tokens(written_out: bool = False) -> NormNet:
    """Two layers with a LayerNormalization of eight channels between them."""
    net = NormNet()
    x = net.op("Add", net.tokens(8, "N", 4), net.weight(8, name="shift"), name="shifted")
    if written_out:
        net.written_out("LayerNormalization", "pow-div", x, -1, 3, 8)
    else:
        parameters = net.weight(8, name="c.scale"), net.weight(8, name="c.bias")
        net.op("LayerNormalization", x, *parameters, name="c")
    net.consume("c", 3, -1, 8)
    return net


def _pruned(model: Model) -> tuple[ir.Model, ir.Model, Plan]:
    channels = analyse(model.ir.graph, "inner", ("LayerNormalization",))
    plan = channels.plan(random_keep(channels, 1))
    assert 2 <= plan.axes["c"][2].sum() < 8
    return model.ir, compacted(model, plan).ir, plan


def _half(model: Model) -> Model:
    """The model in float16."""
    graph = model.ir.graph
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.FLOAT16)
            if value.const_value is not None:
                store(value, numbers(value).astype(np.float16))
    infer(model.ir)
    return model


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_a_proof_tells_what_it_gathered(written_out: bool, half: bool, context: Context) -> None:
    model = _tokens(written_out).model()
    proof = prove(*_pruned(_half(model) if half else model), context)
    assert proof.verdict == "proved", proof
    assert proof.reason.endswith("; against the gathered reference at 1 LayerNormalization")
    assert proof.inexact == proof.to_json()["inexact"] == {"LayerNormalization": 1}


def test_exact_proofs_gather_nothing(context: Context) -> None:
    model = _tokens().model()
    proof = prove(model.ir, model.ir.clone(), Plan.empty(), context)
    assert proof.verdict == "proved"
    assert proof.inexact == {}


def test_each_node_can_be_run_on_its_own(context: Context, tmp_path: Path) -> None:
    comparison = Comparison(*_pruned(_tokens(True).model()), context, tmp_path, 1e-4)
    errors = Errors(1e-5)
    comparison.run_steps(comparison.feeds(0), errors)
    assert errors.beyond == []
    assert errors.worst is not None


def _swap(name: str, axis: int = 0) -> Callable[[ir.Graph], None]:
    def mutate(graph: ir.Graph) -> None:
        value = graph.initializers[name]
        store(value, swapped(numbers(value), (0, 1), axis))

    mutate.__name__ = f"{name}[{axis}]"
    return mutate


def _over_zeros(graph: ir.Graph) -> None:
    """Statistics over the full width with zeros in place of the dropped channels."""
    node = next(n for n in graph if n.op_type == "LayerNormalization")
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    count = len(numbers(graph.initializers["c.scale"]))

    def ints(name: str, values: Sequence[int]) -> ir.Value:
        tensor = ir.tensor(np.array(values, np.int64), name=name)
        value = ir.Value(
            name=name,
            const_value=tensor,
            shape=ir.Shape([len(values)]),
            type=ir.TensorType(ir.DataType.INT64),
        )
        graph.register_initializer(value)
        return value

    pad = ir.node("Pad", [data, ints("pads", [0, 0, 0, 0, 0, 8 - count])], name="zeros")
    pad.outputs[0].name = "padded"
    graph.insert_before(node, pad)
    node.replace_input_with(0, pad.outputs[0])
    for name in ("c.scale", "c.bias"):
        store(graph.initializers[name], np.pad(numbers(graph.initializers[name]), (0, 8 - count)))
        graph.initializers[name].shape = ir.Shape([8])
    cut = ir.node("Gather", [output, ints("first", range(count))], {"axis": 2}, name="cut")
    output.replace_all_uses_with(cut.outputs[0])
    cut.replace_input_with(0, output)
    cut.outputs[0].name, output.name = "c", "wide"
    graph.insert_after(node, cut)
    for value in (pad.outputs[0], output):
        value.shape = ir.Shape(["N", 4, 8])
    cut.outputs[0].shape = ir.Shape(["N", 4, count])
    for value in (pad.outputs[0], output, cut.outputs[0]):
        value.type = data.type


@pytest.mark.parametrize(
    "mutate",
    [_swap("p.w", 1), _swap("shift"), _swap("c.scale"), _swap("c.bias"), _swap("y.w"), _over_zeros],
    ids=lambda mutate: mutate.__name__,
)
def test_a_wrong_compaction_through_a_norm_is_rejected(
    mutate: Callable[[ir.Graph], None], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the numbers alone, without the comparison of weights."""
    for check in ("weights", "nodes", "shapes"):
        monkeypatch.setattr(agreement, check, lambda base, pruned, plan: iter(()))
    base, small, plan = _pruned(_tokens().model())
    mutate(small.graph)
    proof: Proof = prove(base, small, plan, context)
    assert proof.verdict == "failed", proof
    assert "is off by" in proof.reason

"""The proof: what it compares, how it decides, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from strategies import Net, compacted, random_keep

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.compare import difference, relative_error
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Plan
from irprune.probe import Kind, has_half, promote
from irprune.proof import Proof, prove
from irprune.protocols import RunnerCrashed

Arrays = dict[str, np.ndarray]
Case = tuple[ir.Model, ir.Model, Plan]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


def layers(height: int | str = 6, width: int | str = 6) -> Net:
    """Convolution, BatchNormalization, Relu and convolution of 3, 8 and 4 channels."""
    net = Net()
    net.conv(net.input("N", 3, height, width), 3, 8, 3, 3, name="a")
    scale, shift, mean = (net.weight(8, name=f"b.{name}") for name in ("scale", "shift", "mean"))
    net.op("BatchNormalization", "a", scale, shift, mean, net.weight(8, low=0.5), name="b")
    net.conv(net.op("Relu", "b", name="r"), 8, 4, 1, 1, name="y")
    return net


def pruned(model: Model, seed: int = 1) -> Case:
    """A base, what a random plan makes of it, and the plan."""
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, seed))
    assert plan
    return model.ir, compacted(model, plan).ir, plan


def same(model: ir.Model) -> Case:
    return model, model.clone(), Plan.empty()


def node(model: ir.Model, output: str) -> ir.Node:
    return next(n for n in model.graph if n.outputs[0].name == output)


def half(model: Model, kind: ir.DataType) -> Model:
    """The model with float32 everywhere replaced."""
    graph = model.ir.graph
    made = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *made):
        if value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(kind)
            if value.const_value is not None:
                array = value.const_value.numpy().astype(kind.numpy())
                value.const_value = ir.tensor(array, name=value.name)
    return model


# What is proved


def test_a_compacted_model_is_proved(context: Context) -> None:
    base, small, plan = pruned(layers().model())
    proof = prove(base, small, plan, context)
    assert proof.verdict == "proved", proof
    assert proof.compared == len(base.graph)
    assert proof.max_error is not None and proof.max_error < 1e-5
    assert (proof.seeds, proof.tolerance, proof.accumulated) == (3, 1e-4, None)
    assert proof.feeds["x"]["shape"] == [2, 3, 6, 6]
    assert [m.weight for m in proof.mutants] == ["a.w", "y.w"]
    assert all(m.error > proof.tolerance for m in proof.mutants)
    assert str(proof).startswith("proved: 4 activations agree within ")
    data = json.loads(json.dumps(proof.to_json(), allow_nan=False))
    assert data["verdict"] == "proved" and len(data["mutants"]) == 2


def test_neither_model_is_changed(context: Context) -> None:
    base, small, plan = pruned(half(layers().model(), ir.DataType.FLOAT16))
    before = [ir.to_proto(m).SerializeToString(deterministic=True) for m in (base, small)]
    assert prove(base, small, plan, context).verdict == "proved"
    after = [ir.to_proto(m).SerializeToString(deterministic=True) for m in (base, small)]
    assert before == after


def test_the_same_function_with_other_weights_is_proved_by_an_empty_plan(context: Context) -> None:
    model = layers().model().ir
    other = model.clone()
    for name, factor in (("b.scale", 2), ("b.shift", 2), ("y.w", 0.5)):
        value = other.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=name)
    for output in ("b", "r"):
        value = node(other, output).outputs[0]
        value.name = f"{output}.doubled"
    proof = prove(model, other, Plan.empty(), context)
    assert (proof.verdict, proof.compared) == ("proved", 2), proof


@pytest.mark.parametrize("kind", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE])
def test_other_floating_point_types(kind: ir.DataType, context: Context) -> None:
    net = Net()
    net.linear(net.op("Relu", net.linear(net.input("N", 3), 3, 16), name="r"), 16, 4, name="y")
    proof = prove(*pruned(half(net.model(), kind)), context)
    assert proof.verdict == "proved", proof
    assert proof.max_error is not None and proof.max_error < 1e-5


def test_half_precision_is_widened_in_weights_attributes_and_types() -> None:
    net = Net()
    value = ir.tensor(np.array([1.5], np.float16))
    filled = net.op("ConstantOfShape", net.ints(2, 3), value=ir.to_proto(value))
    net.op("Add", net.op("Cast", net.input(2, 3), to=TensorProto.FLOAT16), filled, name="y")
    model = net.model().ir
    assert has_half(model)
    promote(model)
    assert not has_half(model)
    assert node(model, "y").inputs[0].producer().attributes["to"].as_int() == ir.DataType.FLOAT
    attribute = node(model, "y").inputs[1].producer().attributes["value"].as_tensor()
    assert (attribute.dtype, attribute.numpy().tolist()) == (ir.DataType.FLOAT, [1.5])


def test_sizes_are_found_that_the_base_runs_with(context: Context) -> None:
    net = Net()
    x = net.op("Flatten", net.conv(net.input("N", 3, "H", "W"), 3, 4, name="a"))
    model = net.linear(x, 4 * 32 * 32, 2, name="y") and net.model()
    assert prove(*same(model.ir), context).feeds["x"]["shape"] == [1, 3, 32, 32]


def test_inputs_that_the_user_gave_whole_are_run_once(context: Context) -> None:
    given = {"x": np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)}
    proof = prove(*pruned(layers().model()), Context(runner=context.runner, feeds=given))
    assert (proof.verdict, proof.seeds) == ("proved", 1)


def test_shapes_that_the_user_gave_are_used(context: Context) -> None:
    shapes = {"x": (3, 3, 7, 9)}
    proof = prove(*pruned(layers("H", "W").model()), Context(runner=context.runner, shapes=shapes))
    assert proof.feeds["x"]["shape"] == [3, 3, 7, 9]


def test_large_activations_are_compared_in_parts(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irprune.compare._CHUNK_ELEMENTS", 300)
    assert prove(*pruned(layers().model()), context).verdict == "proved"


def test_rounding_that_adds_up_is_told_from_mistakes(context: Context) -> None:
    """The sine of thousands is exact to a thousandth only, but exact for its own argument."""
    net = Net()
    net.op("Tanh", net.linear(net.input("N", 9, 3), 3, 500, name="a"), name="t")
    total = net.op("ReduceSum", "t", net.ints(-1))
    net.op("Sin", net.op("Mul", total, net.constant(np.float32(1000))), name="y")
    base, small, plan = pruned(net.model())
    proof = prove(base, small, plan, context)
    assert proof.verdict == "proved", proof
    assert proof.accumulated is not None and proof.accumulated > 1e-4
    assert proof.max_error is not None and proof.max_error < 1e-5
    assert "rounding adds up to" in proof.reason
    bypass(small, "t")
    assert prove(base, small, plan, context).verdict == "failed"


def bypass(model: ir.Model, output: str) -> None:
    """Let the readers of a node's output read its input."""
    bypassed = node(model, output)
    assert bypassed.inputs[0] is not None
    bypassed.outputs[0].replace_all_uses_with(bypassed.inputs[0])
    model.graph.remove(bypassed)


def test_integer_results(context: Context) -> None:
    net = layers()
    net.op("ArgMax", net.op("Flatten", "y"), name="best", axis=1)
    net.op("Cast", net.op("Greater", "best", net.ints(3)), name="flag", to=TensorProto.INT32)
    proof = prove(*pruned(net.model("best", "flag", "y")), context)
    assert (proof.verdict, proof.compared) == ("proved", 8), proof


def test_activations_that_a_body_reads(context: Context) -> None:
    net = layers()
    bodies = {
        branch: helper.make_graph(
            [helper.make_node(op, ["y"], [branch])],
            branch,
            [],
            [helper.make_tensor_value_info(branch, TensorProto.FLOAT, None)],
        )
        for branch, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    net.op("If", net.constant(np.array(True)), name="z", **bodies)
    proof = prove(*pruned(half(net.model("z"), ir.DataType.FLOAT16)), context)
    assert (proof.verdict, proof.compared) == ("proved", 5), proof


def test_infinite_and_nan_activations_are_compared(context: Context) -> None:
    net = layers()
    net.op("Log", "y", name="z")
    proof = prove(*pruned(net.model("z")), context)
    assert proof.verdict == "proved", proof


# What fails before anything is run


def renamed(model: ir.Model) -> None:
    model.graph.outputs[0].name = "other"


def typed(model: ir.Model) -> None:
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.DOUBLE)


def batched(model: ir.Model) -> None:
    model.graph.outputs[0].shape = ir.Shape([2, 4, 4, 4])


def narrowed(model: ir.Model) -> None:
    node(model, "r").outputs[0].shape = ir.Shape(["N", 99, 4, 4])


def scaled(model: ir.Model) -> None:
    value = model.graph.initializers["b.scale"]
    assert value.const_value is not None
    array = np.nextafter(value.const_value.numpy(), np.float32(9))
    value.const_value = ir.tensor(array, name=value.name)


def epsilon(model: ir.Model) -> None:
    node(model, "b").attributes["epsilon"] = ir.AttrFloat32("epsilon", 1.1e-5)


def replaced(model: ir.Model) -> None:
    node(model, "r").op_type = "Elu"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (renamed, "the outputs are ['other'], were ['y']"),
        (typed, "x is of type DOUBLE, was FLOAT"),
        (batched, "y has shape [2, 4, 4, 4], had ['N', 4, 4, 4]"),
        (narrowed, "r has shape ['N', 99, 4, 4], the plan keeps ['N', "),
        (scaled, "initializer b.scale differs from the kept part of the base's"),
        (epsilon, "attribute epsilon of node b.BatchNormalization (BatchNormalization) changed"),
        (replaced, "node r.Relu (Relu) became a Elu"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_what_must_agree_exactly(change: Any, reason: str, context: Context) -> None:
    base, small, plan = pruned(layers().model())
    change(small)
    proof = prove(base, small, plan, context)
    assert proof.verdict == "failed"
    assert proof.reason.startswith(reason)
    assert proof.max_error is None
    assert proof.to_json()["max_error"] is None


def test_several_disagreements_are_counted(context: Context) -> None:
    base, small, plan = pruned(layers().model())
    scaled(small)
    epsilon(small)
    assert prove(base, small, plan, context).reason.endswith(" (and 1 more)")


def test_a_plan_of_another_model_is_refused(context: Context) -> None:
    base, small, _ = pruned(layers().model())
    with pytest.raises(IrpruneError, match="the plan names tensor nothing"):
        prove(base, small, Plan({"nothing": {0: np.array([True])}}), context)


def test_without_a_runner_nothing_can_be_proved() -> None:
    with pytest.raises(IrpruneError, match=r"onnxruntime, which is not installed.*irprune\[cpu\]"):
        prove(*pruned(layers().model()), Context())


# What fails when it is run


def test_a_difference_names_the_first_and_the_worst_activation(context: Context) -> None:
    base, small, plan = pruned(layers().model())
    bypass(small, "r")
    proof = prove(base, small, plan, context)
    assert (proof.verdict, proof.seeds, proof.worst) == ("failed", 1, "y")
    assert "y is off by " in proof.reason and "the bound is 1e-04" in proof.reason


def test_a_pruned_model_that_does_not_run_fails(context: Context) -> None:
    base, small, plan = pruned(layers().model())
    node(small, "y").attributes["group"] = ir.AttrInt64("group", 2)
    proof = prove(base, small, plan, context)
    assert proof.verdict == "failed"
    assert proof.reason.startswith("the pruned model does not run: ")


def test_a_base_that_does_not_run_is_an_error(context: Context) -> None:
    net = Net()
    net.op("Identity", net.input(2, 3), name="y")
    model = net.model().ir
    node(model, "y").domain = "somebody.else"
    model.graph.opset_imports["somebody.else"] = 1
    with pytest.raises(IrpruneError, match="the base cannot be run, so nothing can be proved"):
        prove(*same(model), context)


class Dying:
    """A runner whose process dies on one of the files."""

    def __init__(self, runner: Any, victim: str) -> None:
        self.runner, self.victim = runner, victim

    def run(
        self, model: Path, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None,
        *, optimize: bool = False,
    ) -> Arrays:  # fmt: skip
        if model.stem == self.victim:
            raise RunnerCrashed("onnxruntime was killed by SIGFPE (signal 8)", file=model)
        result: Arrays = self.runner.run(model, feeds, outputs, optimize=optimize)
        return result


@pytest.mark.parametrize(
    ("victim", "whose"), [("pruned", "the pruned model"), ("reference", "the masked base")]
)
def test_a_crash_fails_with_its_text(victim: str, whose: str, context: Context) -> None:
    assert context.runner is not None
    runner = Dying(context.runner(), victim)
    proof = prove(*pruned(layers().model()), Context(runner=lambda: runner))
    assert proof.verdict == "failed"
    assert proof.reason == f"{whose} does not run: onnxruntime was killed by SIGFPE (signal 8)"


# What is inconclusive


@pytest.mark.parametrize("fill", [0, 1])
def test_channels_that_are_all_alike_prove_nothing(fill: float, context: Context) -> None:
    model = layers().model()
    for value in model.ir.graph.initializers.values():
        assert value.const_value is not None
        array = np.full_like(value.const_value.numpy(), fill)
        value.const_value = ir.tensor(array, name=value.name)
    proof = prove(*pruned(model), context)
    assert (proof.verdict, proof.mutants) == ("inconclusive", ())
    assert proof.reason == "no two channels of any floating-point weight differ"


def test_a_mutant_that_goes_unnoticed_is_named(context: Context) -> None:
    model = layers().model()
    base, small, plan = pruned(model)
    feeds = {"x": np.zeros((1, 3, 6, 6), np.float32)}
    proof = prove(base, small, plan, Context(runner=context.runner, feeds=feeds))
    assert proof.verdict == "inconclusive"
    assert "on axis 0 of a.w changes activations by 0.0e+00 only" in proof.reason


def test_a_model_without_weights_is_inconclusive(context: Context) -> None:
    net = Net()
    net.op("Relu", net.input(2, 3), name="y")
    proof = prove(*same(net.model().ir), context)
    assert (proof.verdict, proof.compared) == ("inconclusive", 1)


def test_random_numbers_are_inconclusive(context: Context) -> None:
    net = Net()
    net.op("Add", net.input(2, 3), net.op("RandomNormal", shape=[2, 3]), name="y")
    proof = prove(*same(net.model().ir), context)
    assert proof == Proof(
        "inconclusive", "randomnormal1.RandomNormal (RandomNormal) draws random numbers", 1e-4
    )


# How two arrays are compared


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        ([1, 2], [1, 2], 0),
        ([1, 2.5], [1, 2], 0.25),
        ([-4, 0], [-5, 0], 0.2),
        ([0, 0], [0, 0], 0),
        ([0, 1e-9], [0, 0], np.inf),
        ([], [], 0),
        ([np.nan, 1], [np.nan, 2], 0.5),
        ([np.nan, 1], [1, 1], np.inf),
        ([1, 1], [np.nan, 1], np.inf),
        ([np.inf, -np.inf, 1], [np.inf, -np.inf, 1], 0),
        ([np.inf, 1], [-np.inf, 1], np.inf),
        ([np.nan, 1], [np.inf, 1], np.inf),
        ([np.inf, np.nan], [np.inf, np.nan], 0),
    ],
)
def test_relative_error(got: list[float], want: list[float], error: float) -> None:
    arrays = np.array(got, np.float32), np.array(want, np.float32)
    assert relative_error(*arrays) == pytest.approx(error)


def test_shapes_and_types_must_agree() -> None:
    ones = np.ones((1, 3), np.float32)
    assert difference(ones, ones[0], Kind.FLOAT) == np.inf
    assert difference(ones, ones.astype(np.float64), Kind.FLOAT) == np.inf


def test_rounding_may_tip_one_integer_in_a_thousand() -> None:
    want = np.arange(1000)
    one, two = want.copy(), want.copy()
    one[:1] += 1
    two[:2] += 1
    assert difference(one, want, Kind.ROUNDED) == 0
    assert difference(two, want, Kind.ROUNDED) == np.inf
    assert difference(one, want, Kind.EXACT) == np.inf
    assert difference(want, want, Kind.EXACT) == 0

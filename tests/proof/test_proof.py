"""The proof: what it compares, how it decides, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from cases import Case, layers, node, pruned
from onnx import TensorProto, helper
from strategies import Net

from irprune.backends.ort.runner import OrtRunner
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Plan
from irprune.proof.probe import has_half, promote
from irprune.proof.prover import Proof, prove
from irprune.protocols import RunnerCrashed

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


def same(model: ir.Model) -> Case:
    return model, model.clone(), Plan.empty()


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


@pytest.mark.parametrize("version", [3, 14])
def test_old_and_new_file_versions(version: int, context: Context) -> None:
    base, small, plan = pruned(layers().model())
    base.ir_version = small.ir_version = version
    assert prove(base, small, plan, context).verdict == "proved"


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


class Watched:
    """A runner that notes how many bytes each run exposes, as a file and as what is fetched."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self.files: list[str] = []
        self.exposed: list[int] = []

    def run(
        self, model: Path, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None,
        *, optimize: bool = False,
    ) -> Arrays:  # fmt: skip
        everything: Arrays = self.runner.run(model, feeds, None, optimize=optimize)
        self.files.append(model.name)
        self.exposed.append(sum(array.nbytes for array in everything.values()))
        return everything if outputs is None else {name: everything[name] for name in outputs}


@pytest.mark.parametrize("opened", [False, True])
def test_large_activations_are_compared_in_parts(
    opened: bool, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same verdict, errors and mutants as in one run, and no run exposes more than allowed."""
    assert context.runner is not None
    case = pruned((layers("H", "W") if opened else layers()).model())
    whole, cut = Watched(context.runner()), Watched(context.runner())
    expected = prove(*case, Context(runner=lambda: whole))
    side = 62 if opened else 4
    limit = 2 * 8 * side * side * 4  # the largest activation
    monkeypatch.setattr("irprune.proof.parts.PART_BYTES", limit)
    assert prove(*case, Context(runner=lambda: cut)) == expected
    assert expected.verdict == "proved"
    stages = [n for name, n in zip(cut.files, cut.exposed, strict=True) if "stage" in name]
    assert len(stages) == 3 * 2 * 4 and max(stages) <= 2 * limit < max(whole.exposed)
    assert not any("stage" in name for name in whole.files)


def test_rounding_is_found_in_parts_too(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    case = pruned(_sines().model())
    expected = prove(*case, context)
    monkeypatch.setattr("irprune.proof.parts.PART_BYTES", 2 * 9 * 500 * 4)
    assert prove(*case, context) == expected
    assert expected.accumulated is not None
    bypass(case[1], "t")
    assert prove(*case, context).verdict == "failed"


def _sines() -> Net:
    net = Net()
    net.op("Tanh", net.linear(net.input("N", 9, 3), 3, 500, name="a"), name="t")
    total = net.op("ReduceSum", "t", net.ints(-1))
    net.op("Sin", net.op("Mul", total, net.constant(np.float32(1000))), name="y")
    return net


def test_rounding_that_adds_up_is_told_from_mistakes(context: Context) -> None:
    """The sine of thousands is exact to a thousandth only, but exact for its own argument."""
    base, small, plan = pruned(_sines().model())
    proof = prove(base, small, plan, context)
    assert proof.verdict == "proved", proof
    assert proof.accumulated is not None and proof.accumulated > 1e-4
    assert proof.max_error is not None and proof.max_error < 1e-5
    assert "rounding adds up to" in proof.reason
    bypass(small, "t")
    assert prove(base, small, plan, context).verdict == "failed"


def test_quiet_channels_that_get_loud_later_are_compared(context: Context) -> None:
    net = Net()
    loud = net.conv(net.input("N", 3, 6, 6), 3, 4, name="a")
    quiet = [net.op("Mul", net.conv("x", 3, 4), net.constant(np.float32(1e-9))) for _ in range(2)]
    net.op("Concat", loud, *quiet, name="c", axis=1)
    scale = np.array([1] * 4 + [1e9] * 8, np.float32).reshape(1, 12, 1, 1)
    net.conv(net.op("Mul", "c", net.constant(scale)), 12, 2, name="y")
    base, small, plan = pruned(net.model())
    assert prove(base, small, plan, context).verdict == "proved"
    joined = node(small, "c")
    first, second = joined.inputs[1:]
    joined.replace_input_with(1, second)
    joined.replace_input_with(2, first)
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
    proof = prove(*pruned(net.model("z")), context)
    assert (proof.verdict, proof.compared) == ("proved", 5), proof


def test_infinite_and_nan_activations_are_compared(context: Context) -> None:
    net = layers()
    net.op("Log", "y", name="z")
    proof = prove(*pruned(net.model("z")), context)
    assert proof.verdict == "proved", proof


# What fails before anything is run


def test_disagreements_are_found_before_anything_is_run(context: Context) -> None:
    base, small, plan = pruned(layers().model())
    small.graph.outputs[0].name = "other"
    proof = prove(base, small, plan, context)
    assert proof.verdict == "failed"
    assert proof.reason == "the outputs are ['other'], were ['y']"
    assert proof.max_error is None
    assert proof.to_json()["max_error"] is None


def test_several_disagreements_are_counted(context: Context) -> None:
    base, small, plan = pruned(layers().model())
    node(small, "b").attributes["epsilon"] = ir.AttrFloat32("epsilon", 2e-5)
    node(small, "r").op_type = "Elu"
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
    with pytest.raises(IrpruneError) as caught:
        prove(*same(model), context)
    message = str(caught.value)
    assert message.startswith("the base cannot be run, so nothing can be proved: ")
    assert "Load model from reference.onnx failed" in message


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
    assert proof.reason == "no weight of the main graph has two channels that differ"


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


def test_an_output_that_is_no_tensor_is_inconclusive(context: Context) -> None:
    net = Net()
    net.op("SplitToSequence", net.linear(net.input(2, 3), 3, 4, name="y"), name="z")
    proof = prove(*same(net.model("y", "z").ir), context)
    assert proof.verdict == "inconclusive"
    assert proof.reason == "output z is no tensor, so it cannot be compared"


def test_random_numbers_are_inconclusive(context: Context) -> None:
    net = Net()
    net.op("Add", net.input(2, 3), net.op("RandomNormal", shape=[2, 3]), name="y")
    proof = prove(*same(net.model().ir), context)
    assert proof == Proof(
        "inconclusive", "randomnormal1.RandomNormal (RandomNormal) draws random numbers", 1e-4
    )

"""The pass manager: order, analyses, reports, structural checks and reproducers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from irprune.errors import CheckFailed, IrpruneError, PassFailed
from irprune.frontends.onnx import load
from irprune.model import Model
from irprune.passbase import Analysis, Context, Pass, option
from irprune.pipeline.language import parse
from irprune.pipeline.manager import METADATA_KEY, Hooks, run_passes
from irprune.pipeline.options import resolve
from irprune.pipeline.registry import PASSES
from irprune.plan import Plan

COMPUTED: list[str] = []


@dataclass(frozen=True)
class NodeCount(Analysis[int]):
    """Counts nodes."""

    twice: bool = False

    def compute(self, model: Model, context: Context) -> int:
        COMPUTED.append(repr(self))
        return len(model.ir.graph) * (2 if self.twice else 1)


@dataclass(frozen=True)
class Look(Pass):
    """Asks for an analysis; leaves the graph alone."""

    name: ClassVar[str] = "look"
    transforms: ClassVar[bool] = False
    twice: bool = option(False, help="ask with the option")

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        return {"nodes": context.get(NodeCount(self.twice), model)}


@dataclass(frozen=True)
class Touch(Pass):
    """A transform that changes nothing."""

    name: ClassVar[str] = "touch"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Preserve(Touch):
    """A transform that keeps the node count."""

    name: ClassVar[str] = "preserve"
    preserves: ClassVar[tuple[type[Analysis[Any]], ...]] = (NodeCount,)


@dataclass(frozen=True)
class Select(Pass):
    """Leaves a pending plan."""

    name: ClassVar[str] = "select"
    transforms: ClassVar[bool] = False

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        model.base = model.base or model.ir
        model.pending = Plan.empty()
        return {}


@dataclass(frozen=True)
class Scale(Pass):
    """Multiplies a weight: the function changes, the structure does not."""

    name: ClassVar[str] = "scale"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        import onnx_ir as ir

        weight = model.ir.graph.initializers["W"]
        assert weight.const_value is not None
        weight.const_value = ir.tensor(weight.const_value.numpy() * 2, name="W")
        return {"scaled": ["W"]}


@dataclass(frozen=True)
class Break(Pass):
    """Leaves a weight of the wrong shape."""

    name: ClassVar[str] = "break"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        import onnx_ir as ir

        weight = model.ir.graph.initializers["W"]
        weight.const_value = ir.tensor(np.zeros((2, 3), np.float32), name="W")
        return {}


@dataclass(frozen=True)
class Crash(Pass):
    """Has a bug, or finds fault with the input."""

    name: ClassVar[str] = "crash"
    usage: bool = option(False, help="raise a usage error")

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        if self.usage:
            raise IrpruneError("the target is out of reach")
        raise KeyError("lost")


TOYS = [Look, Touch, Preserve, Select, Scale, Break, Crash]
KNOWN = {**PASSES, **{cls.name: f"{__name__}:{cls.__name__}" for cls in TOYS}}
Run = Callable[..., Context]


@pytest.fixture
def model() -> Model:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        tiny (float[1,4] x) => (float[1,5] y)
        <float[4,5] W = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20}>
        { h = MatMul(x, W)
          y = Relu(h) }
        """
    )
    return Model.from_proto(proto)


@pytest.fixture
def run(model: Model) -> Run:
    def go(text: str, context: Context | None = None, **hooks: Any) -> Context:
        context = context or Context()
        run_passes(resolve(parse(text), KNOWN), model, context, Hooks(**hooks))
        return context

    COMPUTED.clear()
    return go


def test_rows_and_metadata(run: Run, model: Model) -> None:
    context = run("look, touch,  look{twice=true}")
    assert [(row["pass"], row["changed"]) for row in context.report["passes"]] == [
        ("look", {"nodes": 2}),
        ("touch", {}),
        ("look{twice}", {"nodes": 4}),
    ]
    assert all(row["seconds"] >= 0 for row in context.report["passes"])
    assert model.ir.metadata_props[METADATA_KEY] == "look, touch, look{twice}"


@pytest.mark.parametrize(
    ("text", "computed"),
    [
        ("look, look", 1),
        ("look, look{twice}, look", 2),
        ("look, touch, look", 2),
        ("look, preserve, look", 1),
    ],
)
def test_analyses_are_cached_until_a_transform_drops_them(
    run: Run, text: str, computed: int
) -> None:
    run(text)
    assert len(COMPUTED) == computed


def test_analyses_of_different_models_are_kept_apart(model: Model) -> None:
    COMPUTED.clear()
    context, other = Context(), model.clone()
    context.get(NodeCount(), model)
    context.get(NodeCount(), other)
    context.changed(model)
    context.get(NodeCount(), other)
    assert len(COMPUTED) == 2


def test_the_base_pipeline_holds_the_transforms_before_the_first_plan(
    run: Run, model: Model
) -> None:
    run("touch, look, preserve, select, touch")
    assert model.base_pipeline == "touch, preserve"


def test_the_log_names_passes_and_times_them(run: Run) -> None:
    lines: list[str] = []
    run("look, touch", Context(log=lines.append))
    assert lines == ["[1/2] look", "[2/2] touch"]
    lines.clear()
    run("look", Context(log=lines.append), time_passes=True)
    assert lines[0] == "[1/1] look"
    assert re.fullmatch(r"\[1/1\] look: 0\.\d+ s", lines[1])


def test_print_after(run: Run) -> None:
    lines: list[str] = []
    run("look, touch", Context(log=lines.append), print_after=["touch"])
    assert "MatMul" in lines[-1]
    with pytest.raises(IrpruneError, match="no such pass in the pipeline; did you mean `touch`"):
        run("touch", print_after=["toch"])


def test_a_crash_leaves_a_reproducer(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PassFailed) as caught:
        run("touch, crash, look", Context(seed=7, shapes={"x": (1, 4)}), reproducers=tmp_path)
    folder = tmp_path / "irprune-repro-crash"
    assert str(caught.value) == f"pass `crash` failed: KeyError: 'lost'; reproducer: {folder}"
    assert len(load(folder / "model.onnx").ir.graph) == 2
    recipe = (folder / "pipeline.pipe").read_text()
    assert "--seed 7 --shape x=1x4" in recipe
    assert resolve(parse(recipe), KNOWN) == resolve(parse("crash, look"), KNOWN)
    assert "KeyError: 'lost'" in (folder / "error.txt").read_text()


def test_a_reproducer_starts_before_a_pending_plan(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PassFailed):
        run("scale, select, crash", reproducers=tmp_path)
    folder = tmp_path / "irprune-repro-crash"
    assert resolve(parse((folder / "pipeline.pipe").read_text()), KNOWN) == (Select(), Crash())
    saved = load(folder / "model.onnx").ir.graph.initializers["W"].const_value
    assert saved is not None
    np.testing.assert_array_equal(saved.numpy().flat[:3], [2, 4, 6])


def test_a_reproducer_that_cannot_be_written_is_said(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PassFailed, match="no reproducer could be written"):
        run("crash", reproducers=tmp_path / "missing")


def test_usage_errors_leave_no_reproducer(run: Run, tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="the target is out of reach") as caught:
        run("crash{usage}", reproducers=tmp_path)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_structurally_wrong_result_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(PassFailed, match="pass `break` left a wrong model"):
        run("break", reproducers=tmp_path)
    assert (tmp_path / "irprune-repro-break").is_dir()


def test_verify_each_needs_a_runner(run: Run) -> None:
    with pytest.raises(IrpruneError, match="needs onnxruntime") as caught:
        run("touch", verify_each=True)
    assert not isinstance(caught.value, CheckFailed)


def test_verify_each_blames_the_pass_that_changed_the_function(run: Run, tmp_path: Path) -> None:
    from irprune.backends.ort.runner import OrtRunner

    with OrtRunner() as runner:
        context = Context(runner=lambda: runner)
        with pytest.raises(PassFailed, match="`scale` left a wrong model: base equals original"):
            run("touch, scale, look", context, verify_each=True, reproducers=tmp_path)
    assert (tmp_path / "irprune-repro-scale").is_dir()

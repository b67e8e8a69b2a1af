"""The library, as the package's docstring shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import irprune

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,6] x) => (float[N,3] y)
{ h = Gemm <transB = 1> (x, W1, b1)
  r = Relu(h)
  y = Gemm <transB = 1> (r, W2) }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model = onnx.parser.parse_model(TEXT)
    random = np.random.default_rng(0)
    for name, shape in (("W1", (8, 6)), ("b1", (8,)), ("W2", (3, 8))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "mlp.onnx")
    return tmp_path / "mlp.onnx"


def test_load_run_save(path: Path, tmp_path: Path) -> None:
    model = irprune.load(path)
    result = irprune.run("prune{criterion=l1 ratio=0.5}, compact, verify", model)
    result.model.save(tmp_path / "small.onnx")
    result.plan.save(tmp_path / "plan.json")
    assert [proof["verdict"] for proof in result.report["proof"]] == ["proved", "proved"]
    weights = {t.name: list(t.dims) for t in onnx.load(tmp_path / "small.onnx").graph.initializer}
    assert weights == {"W1": [4, 6], "b1": [4], "W2": [3, 4]}
    assert irprune.Plan.load(tmp_path / "plan.json").axes["W1"][0].sum() == 4


def test_the_input_model_stays_as_it_was(path: Path) -> None:
    model = irprune.load(path)
    irprune.run("prune{ratio=0.5}, compact", model, verify=False)
    assert (model.base, model.plan, model.pending) == (None, None, None)
    weight = model.ir.graph.initializers["W1"].const_value
    assert weight is not None
    assert list(weight.shape) == [8, 6]


def test_two_rounds_compose_into_one_plan(path: Path) -> None:
    text = "prune{ratio=0.25}, compact, prune{ratio=0.5}, compact"
    result = irprune.run(text, irprune.load(path))
    mask = result.plan.axes["W1"][0]
    assert (len(mask), mask.sum()) == (8, 3)
    assert result.report["before"]["params"] == 8 * 6 + 8 + 3 * 8
    assert result.report["after"]["params"] == 3 * 6 + 3 + 3 * 3


def test_settings_reach_the_proof(path: Path) -> None:
    settings = irprune.Settings(shapes={"x": (5, 6)}, seed=3)
    result = irprune.run("prune{ratio=0.5}, compact", irprune.load(path), settings=settings)
    assert result.report["seed"] == 3
    assert result.report["proof"][0]["feeds"]["x"]["shape"] == [5, 6]


def test_a_pending_plan_is_asked_for_or_refused(path: Path) -> None:
    model = irprune.load(path)
    with pytest.raises(irprune.IrpruneError, match="add compact to the pipeline"):
        irprune.run("prune{ratio=0.5}", model, verify=False)
    result = irprune.run("prune{ratio=0.5}", model, verify=False, pending=True)
    assert result.plan.axes["W1"][0].sum() == 4


def test_a_later_prune_refines_a_pending_plan(path: Path) -> None:
    result = irprune.run(
        "prune{ratio=0.25}, prune{ratio=0.5}, compact", irprune.load(path), verify=False
    )
    assert result.plan.axes["W1"][0].sum() == 3


@pytest.mark.parametrize(
    "text", ["prune{ratio=0.5}, compact", "normalize, prune{ratio=0.5}, compact"]
)
def test_a_result_is_pruned_again(path: Path, text: str) -> None:
    first = irprune.run("normalize, prune{ratio=0.25}, compact", irprune.load(path))
    second = irprune.run(text, first.model)
    assert second.report["before"] == first.report["after"]
    assert [proof["verdict"] for proof in second.report["proof"]] == ["proved", "proved"]
    mask = second.plan.axes["W1"][0]
    assert (len(mask), mask.sum()) == (6, 3)
    whole = first.plan.then(second.plan).axes["W1"][0]
    assert (len(whole), whole.sum()) == (8, 3)


def test_a_pending_selection_is_compacted_by_a_later_run(path: Path) -> None:
    selected = irprune.run("prune{ratio=0.5}", irprune.load(path), verify=False, pending=True)
    result = irprune.run("compact", selected.model)
    assert result.plan.axes["W1"][0].sum() == 4


def test_inspect_and_explain(path: Path) -> None:
    model = irprune.load(path)
    facts = irprune.inspect(model, after="")
    assert [group["name"] for group in facts["groups"]] == ["W1"]
    row = irprune.explain(model, "W1", 0, 2, after="")["axes"][0]
    assert {(each["tensor"], each["axis"]) for each in row["coupled"]} >= {("W2", 1), ("b1", 0)}


def test_training_is_in_the_library() -> None:
    from irprune.explore.iterate import iterate
    from irprune.explore.train import train

    assert (irprune.train, irprune.iterate) == (train, iterate)
    assert all(callable(getattr(irprune, name)) for name in irprune.__all__)

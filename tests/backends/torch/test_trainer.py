"""The trainer: which models it takes, and what it names where it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch_devices import DEVICES

from irprune import api
from irprune.backends.torch.training.data import ArrayData
from irprune.backends.torch.training.trainer import TorchTrainer
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.recipe import Distillation, Machine, Recipe

INPUT, OUTPUT = "float[N, 6] x", "float[N, 4] y"


RECIPE = Recipe(epochs=1, batch=10)


def trainer(recipe: Recipe = RECIPE, device: Any = "cpu", **arrays: Any) -> TorchTrainer:
    x, y = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32), np.arange(20) % 4
    given = {"x_train": x, "y_train": y, "x_test": x, "y_test": y} | arrays
    data = ArrayData(**given, file="set.npz")
    return TorchTrainer(data, recipe, Machine(device), print)


def model(
    folder: Path,
    nodes: str = "y = MatMul(x, w)",
    given: str = INPUT,
    result: str = OUTPUT,
    weight: float = 0.5,
) -> Model:

    text = f"""<ir_version: 8, opset_import: ["": 17]>
        net ({given}) => ({result})
        <float[6, 4] w = {{{", ".join([str(weight)] * 24)}}}> {{ {nodes} }}"""
    onnx.save(onnx.parser.parse_model(text), folder / "net.onnx")
    return api.load(folder / "net.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"given": "float16[N, 6] h", "nodes": "x = Cast<to: int = 1>(h) y = MatMul(x, w)"},
            "input h takes FLOAT16",
        ),
        (
            {"given": "int64[N, 6] i", "nodes": "x = Cast<to: int = 1>(i) y = MatMul(x, w)"},
            "input i takes INT64",
        ),
        ({"given": "float x", "nodes": "y = Mul(x, x)"}, "input x has no axis for the batch"),
        (
            {"nodes": "a = MatMul(x, w) y = ReduceMax<axes: ints = [1], keepdims: int = 0>(a)",
             "result": "float[N] y"},
            "output y is FLOAT N;",
        ),
        (
            {"nodes": "a = MatMul(x, w) y = ArgMax<axis: int = 1, keepdims: int = 0>(a)",
             "result": "int64[N] y"},
            "output y is INT64 N;",
        ),
    ],
)  # fmt: skip
def test_models_that_do_not_fit(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    given = model(tmp_path, **changes)  # type: ignore[arg-type]
    with pytest.raises(IrpruneError, match=f"net.onnx: {message}"):
        trainer().fit(given, tmp_path / "run")


def test_a_batch_that_only_the_file_fixes_is_trained(tmp_path: Path) -> None:
    given = model(tmp_path, given="float[2, 6] x", result="float[2, 4] y")
    free = model(tmp_path)
    assert trainer().fit(given, tmp_path / "run") == trainer().fit(free, tmp_path / "free")
    before, after = (m.ir.graph.initializers["w"].const_value for m in (free, given))
    assert before is not None and after is not None
    assert np.array_equal(before.numpy(), after.numpy())


BENT = (
    "s = Constant<value_ints = [3, 4]>() t = Constant<value_ints = [2, 6]>() "
    "a = Reshape(x, s) b = Reshape(a, t) y = MatMul(b, w)"
)
SUM = "a = ReduceSum<keepdims: int = 1>(x, axis) b = Add(a, x) y = MatMul(b, w)"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (BENT, "a batch of 3 does not pass: shape"),
        (f"axis = Constant<value_ints = [0]>() {SUM}", "examples of a batch of 3 are mixed up"),
    ],
)
@pytest.mark.parametrize(("batch", "said"), [("2", "the batch is fixed to 2, "), ("N", "")])
def test_a_batch_that_the_graph_fixes_is_refused(
    tmp_path: Path, nodes: str, message: str, batch: str, said: str
) -> None:
    """Whatever its input says of it."""
    given = model(tmp_path, nodes, f"float[{batch}, 6] x", f"float[{batch}, 4] y")
    with pytest.raises(IrpruneError, match=f"net.onnx: {said}{message}"):
        trainer().fit(given, tmp_path / "run")
    with pytest.raises(IrpruneError, match=f"net.onnx: {said}{message}"):
        trainer().score(given)


def test_weights_without_a_place_in_the_file_are_refused_at_once(tmp_path: Path) -> None:
    nodes = "s = Constant<value_ints = [6, 4]>() v = ConstantOfShape(s) y = MatMul(x, v)"
    with pytest.raises(IrpruneError, match=r"net\.onnx: nodes compute the weight v, .*normalize"):
        trainer().fit(model(tmp_path, nodes), tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_labels_that_no_known_axis_holds(tmp_path: Path) -> None:
    """The number of classes is a symbol in the file: only the output itself tells it."""
    given = model(tmp_path, result="float[N, C] y")
    assert trainer().fit(given, tmp_path / "fits").epochs == 1
    with pytest.raises(IrpruneError, match=r"net.onnx: the first output is float32 \(3, 4\)"):
        trainer(y_train=np.arange(20) % 5).fit(given, tmp_path / "run")


def test_a_network_without_a_number_is_no_score(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match=r"net.onnx: the loss on the test split is nan"):
        trainer().score(model(tmp_path, weight=float("nan")))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_test": np.arange(20) % 5}, "set.npz: labels go up to 4"),
        ({name: np.zeros((20, 7), np.float32) for name in ("x_train", "x_test")}, "set.npz: .* 7"),
    ],
)
def test_data_that_do_not_fit_are_named(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    with pytest.raises(IrpruneError, match=message) as raised:
        trainer(**arrays).fit(model(tmp_path), tmp_path / "run")
    assert "channels" not in str(raised.value)


@pytest.mark.parametrize("device", DEVICES)
def test_weights_and_samples_come_back_from_the_device(tmp_path: Path, device: str) -> None:
    net = model(tmp_path)
    before = net.tensors()["w"].numpy().copy()
    worker = trainer(device=device)
    x, y = worker.sample(net, 5, 3)
    fitted = worker.fit(net, tmp_path / "run", keep=(1,))
    after = net.tensors()["w"].numpy()
    assert np.isfinite(after).all() and (after != before).any()
    kept = api.load(tmp_path / "run" / "epoch-1.onnx").tensors()["w"].numpy()
    np.testing.assert_array_equal(kept, after)
    assert worker.score(net) == fitted.score
    again = worker.sample(net, 5, 3)
    assert x.shape == (5, 6) and np.array_equal(x, again[0]) and np.array_equal(y, again[1])


def test_a_sample_that_does_not_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*anything: object) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(torch.Tensor, "index_select", full)
    with pytest.raises(IrpruneError, match="a sample of 5 examples does not fit into memory"):
        trainer().sample(model(tmp_path), 5, 0)


def test_probabilities_are_trained_by_the_logits_before_them(tmp_path: Path) -> None:
    ends = ("y = MatMul(x, w)", "l = MatMul(x, w) y = Softmax(l)")
    plain, soft = (model(tmp_path, nodes) for nodes in ends)
    scores = [trainer().fit(each, tmp_path / str(n)).score for n, each in enumerate((plain, soft))]
    assert scores[0] == scores[1] == trainer().score(soft)
    assert [node.op_type for node in soft.ir.graph] == ["MatMul", "Softmax"]
    held = [each.ir.graph.initializers["w"].const_value for each in (plain, soft)]
    assert held[0] is not None and held[1] is not None
    np.testing.assert_array_equal(held[0].numpy(), held[1].numpy())


PICTURES = {
    "nodes": """o = Constant<value_ints = [1]>() s = Constant<value_ints = [0, 6]>()
        a = ReduceSum<keepdims: int = 0>(x, o) b = Reshape(a, s) y = MatMul(b, w)""",
    "given": "float[N, 1, 2, 3] x",
}
WIDE = {
    "nodes": "a = MatMul(x, w) y = Concat<axis: int = 1>(a, x)",
    "result": "float[N, 10] y",
}


@pytest.mark.parametrize(
    ("student", "teacher"),
    [({}, PICTURES), (PICTURES, {}), ({}, WIDE), (WIDE, {})],
    ids=["pictures", "rows", "more outputs", "fewer outputs"],
)
def test_a_teacher_of_another_shape(
    tmp_path: Path, student: dict[str, str], teacher: dict[str, str]
) -> None:
    """It is fed as it wants to be, and compared in the outputs that both have."""
    taught, known = model(tmp_path, **student), model(tmp_path, weight=0.25, **teacher)  # type: ignore[arg-type]
    x = np.random.default_rng(0).normal(size=(20, 1, 2, 3)).astype(np.float32)
    worker = trainer(replace(RECIPE, distillation=Distillation(0.5)), x_train=x, x_test=x)
    assert worker.fit(taught, tmp_path / "run", teacher=known).epochs == 1
    assert (taught.tensors()["w"].numpy() != 0.5).any()


def test_a_teacher_that_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    nodes = "a = MatMul(x, w) i = Constant<value_ints = [0, 1]>() y = Gather<axis: int = 1>(a, i)"
    known = model(tmp_path, nodes, result="float[N, 2] y")
    worker = trainer(replace(RECIPE, distillation=Distillation(0.5)))
    with pytest.raises(IrpruneError, match=r"set.npz: the teacher .* 2 classes apart"):
        worker.fit(model(tmp_path), tmp_path / "run", teacher=known)
    assert not (tmp_path / "run" / "log.jsonl").exists()

"""A model run in parts computes what it computes in one run, bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from cases import layers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from strategies import Net, seeds

from irprune.backends.ort.runner import OrtRunner
from irprune.proof import parts
from irprune.proof.parts import Arrays, Stages
from irprune.proof.probe import write_probe
from irprune.shapes import infer

COMPARED = ("a", "b", "r", "y", "left", "right", "z", "first", "end")


@pytest.fixture(scope="module")
def runner() -> Iterator[OrtRunner]:
    with OrtRunner() as runner:
        yield runner


def net() -> Net:
    """Convolutions, two halves of the result, a body that reads one of them, and a sequence."""
    net = layers()
    net.split("Split", "y", names=["left", "right"], axis=1)
    bodies = {
        branch: helper.make_graph(
            [helper.make_node(op, ["left"], [branch])],
            branch,
            [],
            [helper.make_tensor_value_info(branch, TensorProto.FLOAT, None)],
        )
        for branch, op in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    net.op("If", net.constant(np.array(True)), name="z", **bodies)
    net.op("SequenceConstruct", "z", "right", name="both")
    net.op("SequenceAt", "both", net.constant(np.array(0)), name="first")
    net.op(
        "Add",
        net.op("SequenceAt", "both", net.constant(np.array(1))),
        net.op("ReduceMax", "r"),
        name="end",
    )
    return net


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds, st.lists(st.integers(0, 3), min_size=len(COMPARED), max_size=len(COMPARED)))
def test_parts_compute_what_one_run_does(
    runner: OrtRunner, tmp_path: Path, seed: int, places: list[int]
) -> None:
    model = net().model("end").ir
    infer(model)
    names = list(COMPARED)
    feeds = {"x": np.random.default_rng(seed).normal(size=(2, 3, 6, 6)).astype(np.float32)}
    write_probe(model.clone(), tmp_path / "whole.onnx", names)
    whole = runner.run(tmp_path / "whole.onnx", feeds, names)
    cut = [[n for n, k in zip(names, places, strict=True) if k == place] for place in range(4)]
    files: list[Path] = []

    def run(file: Path, feeds: Arrays, outputs: Sequence[str]) -> Arrays:
        files.append(file)
        return runner.run(file, feeds, outputs)

    found = list(Stages(model, tmp_path / "model.onnx", cut).run(run, feeds))
    assert [list(part) for part in found] == cut
    for part in found:
        for name, array in part.items():
            assert np.array_equal(array, whole[name]), name
    nodes = Counter(node.name for file in files for node in onnx.load(file).graph.node)
    assert {name for name, count in nodes.items() if count > 1} <= {"both.SequenceConstruct"}


def test_parts_are_filled_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 10)
    sizes = {"a": 0, "b": 4, "c": 6, "d": 1, "e": 11, "f": 0, "g": 10}
    assert parts.parts(sizes) == [["a", "b", "c"], ["d"], ["e", "f"], ["g"]]
    assert parts.parts({}) == []

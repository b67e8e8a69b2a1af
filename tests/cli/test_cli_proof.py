"""`irprune verify` and `irprune apply`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result
from onnx import numpy_helper

Cli = Callable[..., Result]
PIPELINE = "normalize, prune{macs=0.5}, compact"


@pytest.fixture
def pruned(cli: Cli, net: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Base, pruned model and plan."""
    done = cli(
        "run", PIPELINE, net, "-o", "small.onnx", "--base", "b.onnx", "--plan", "p.json",
        "--no-verify",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return tmp_path / "b.onnx", tmp_path / "small.onnx", tmp_path / "p.json"


def test_verify_an_honest_model(cli: Cli, pruned: tuple[Path, Path, Path]) -> None:
    done = cli("verify", *pruned)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("proved: compacted equals masked base")
    assert json.loads(cli("verify", *pruned, "--json").stdout)["verdict"] == "proved"


def test_verify_a_wrong_model(cli: Cli, pruned: tuple[Path, Path, Path]) -> None:
    model = onnx.load(pruned[1])
    weight = next(t for t in model.graph.initializer if t.name == "conv2.weight")
    array = numpy_helper.to_array(weight)[:, ::-1].copy()
    weight.CopyFrom(numpy_helper.from_array(array, "conv2.weight"))
    onnx.save(model, pruned[1])
    done = cli("verify", *pruned, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["verdict"] == "failed"
    assert "error: compacted equals masked base: proof failed" in done.stderr


def test_verify_takes_a_file_that_is_no_plan(cli: Cli, pruned: tuple[Path, Path, Path]) -> None:
    for text in ("{", "[]", "{}", '{"format": "other", "version": 1}'):
        pruned[2].write_text(text)
        done = cli("verify", *pruned)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "p.json: " in done.stderr


def test_apply_to_the_same_checkpoint_gives_the_same_file(
    cli: Cli, net: Path, pruned: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    done = cli("apply", pruned[2], net, "-o", "again.onnx")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "again.onnx").read_bytes() == pruned[1].read_bytes()


def test_apply_to_another_checkpoint(
    cli: Cli, other_net: Path, pruned: tuple[Path, Path, Path]
) -> None:
    done = cli("apply", pruned[2], other_net, "-o", "other_small.onnx")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("proved: ") == 2
    shapes = [
        {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer}
        for path in (pruned[1], "other_small.onnx")
    ]
    assert shapes[0] == shapes[1]


def test_apply_to_another_architecture(
    cli: Cli, dynamic_net: Path, pruned: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    done = cli("apply", pruned[2], dynamic_net, "-o", "out.onnx")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "dynamic.onnx: the plan was made for another graph" in done.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_apply_never_overwrites_its_inputs(
    cli: Cli, net: Path, pruned: tuple[Path, Path, Path]
) -> None:
    for target in (net, pruned[2]):
        done = cli("apply", pruned[2], net, "-o", target)
        assert done.exit_code == 2
        assert "is also an input" in done.stderr

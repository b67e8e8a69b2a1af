"""`irprune bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
from click.testing import Result

Cli = Callable[..., Result]
FEW = ["--rounds", 3, "--warmup", 0]


def test_a_table_of_medians_and_ratios(cli: Cli, net: Path, other_net: Path) -> None:
    done = cli("bench", net, other_net, *FEW)
    assert done.exit_code == 0, done.stderr
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["model", "median", "ratio"]
    assert first.split()[0] == str(net)
    assert first.split()[-2:] == ["ms", "1.000"]
    assert float(second.split()[-1]) > 0
    assert "3 rounds of 2 models on x [1, 3, 8, 8]" in done.stderr


def test_json_and_shapes(cli: Cli, dynamic_net: Path) -> None:
    done = cli("bench", dynamic_net, *FEW, "--shape", "x=3x3x8x8", "--json")
    facts = json.loads(done.stdout)
    assert facts["feeds"] == {"x": [3, 3, 8, 8]}
    assert facts["models"][0]["median_s"] > 0


def test_a_model_that_fails_is_a_row_and_exit_1(cli: Cli, net: Path, other_net: Path) -> None:
    model = onnx.load(other_net)
    model.graph.node[2].op_type = "NoSuchOp"
    onnx.save(model, other_net)
    done = cli("bench", net, other_net, *FEW)
    assert done.exit_code == 1
    assert f"{other_net}  failed" in done.stdout
    assert "NoSuchOp" in done.stderr


def test_bad_usage(cli: Cli, net: Path) -> None:
    for args in (
        [],
        ["missing.onnx"],
        [net, "missing.onnx"],
        [net, "--rounds", 0],
        [net, "--shape", "y=1"],
    ):
        done = cli("bench", *args)
        assert (done.exit_code, done.stdout) == (2, "")

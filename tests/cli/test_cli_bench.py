"""`irprune bench`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import Result

Cli = Callable[..., Result]
FEW = ["--rounds", 3, "--warmup", 0]


def test_a_table_of_medians_and_ratios(cli: Cli, net: Path, other_net: Path) -> None:
    done = cli("bench", net, other_net, *FEW)
    assert done.exit_code == 0, done.stderr
    head, first, second = done.stdout.splitlines()[:3]
    assert [cell.strip() for cell in head.split("  ") if cell] == [
        *("model", "median", "95 % interval", "ratio", "95 % interval", "memory", "on disk")
    ]
    assert first.split()[0] == str(net)
    assert first.split()[6:10] == ["1.000", "1.000", "-", "1.000"]
    median, low, _, high, ratio = (second.split()[k] for k in (1, 3, 4, 5, 6))
    assert 0 < float(low) <= float(median) <= float(high)
    assert float(ratio) > 0
    assert "2 models on x [1, 3, 8, 8]" in done.stderr


def test_json_and_shapes(cli: Cli, dynamic_net: Path) -> None:
    done = cli("bench", dynamic_net, *FEW, "--shape", "x=3x3x8x8", "--json")
    facts = json.loads(done.stdout)
    assert facts["feeds"] == {"x": [3, 3, 8, 8]}
    assert facts["models"][0]["median_s"] > 0


def test_a_table_per_batch(cli: Cli, dynamic_net: Path) -> None:
    done = cli("bench", dynamic_net, *FEW, "--batch", "1,3")
    assert [line for line in done.stdout.splitlines() if line.startswith("batch")] == [
        "batch 1",
        "batch 3",
    ]
    done = cli("bench", dynamic_net, *FEW, "--batch", "1,3", "--json")
    facts = json.loads(done.stdout)["batches"]
    assert [(each["batch"], each["feeds"]["x"][0]) for each in facts] == [(1, 1), (3, 3)]


def test_a_profile(cli: Cli, net: Path) -> None:
    done = cli("bench", net, *FEW, "--profile")
    assert f"profile of {net}: " in done.stdout
    assert "conv1 (Conv) + " in done.stdout
    (row,) = json.loads(cli("bench", net, *FEW, "--profile", "--json").stdout)["models"]
    found = row["profile"]
    assert found["total_s"] >= found["runtime_s"] >= 0
    assert sum(op["seconds"] for op in found["ops"]) == pytest.approx(found["total_s"])
    labels = [label for node in found["nodes"] for label in node["nodes"]]
    assert "fc (Gemm)" in labels
    assert len(labels) == len(set(labels))


def test_caffe_networks_beside_onnx(cli: Cli, tmp_path: Path) -> None:
    caffe, small = tmp_path / "net.prototxt", tmp_path / "small.onnx"
    caffe.write_text(
        'input: "x" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }'
        'layer { name: "a" type: "Convolution" bottom: "x" top: "a"'
        " convolution_param { num_output: 8 kernel_size: 3 } }"
        'layer { name: "b" type: "Convolution" bottom: "a" top: "b"'
        " convolution_param { num_output: 4 kernel_size: 3 } }"
    )
    assert cli("run", "prune{ratio=0.5}, compact", caffe, "-o", small).exit_code == 0
    done = cli("bench", caffe, small, *FEW, "--json", "--phase", "TRAIN")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [row["path"] for row in facts["models"]] == [str(caffe), str(small)]
    assert facts["models"][0]["disk_bytes"] > facts["models"][1]["disk_bytes"] > 0
    done = cli("bench", small, *FEW, "--phase", "TRAIN")
    assert done.exit_code == 2 and "go with a .prototxt" in done.stderr


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
        [net, "--provider", "warp"],
        [net, "--provider-option", "k"],
        [net, "--batch", "1,"],
        [net, "--batch", "2"],
        [net, "--precision", 0],
    ):
        done = cli("bench", *args)
        assert (done.exit_code, done.stdout) == (2, "")

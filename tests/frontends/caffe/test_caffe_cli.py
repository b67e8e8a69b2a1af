"""Caffe networks on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from irprune.cli import main

NET = """input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "one" type: "Convolution" bottom: "data" top: "one"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } } }
layer { name: "two" type: "Convolution" bottom: "one" top: "two"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
"""
PIPELINE = "normalize, prune{ratio=0.5 scope=local}, compact"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def cli(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_run_verify_apply_inspect_explain(net: Path) -> None:
    done = cli("run", PIPELINE, net, "-o", "small.onnx", "--plan", "p.json")
    assert done.exit_code == 0, done.stderr
    shapes = {t.name: list(t.dims) for t in onnx.load("small.onnx").graph.initializer}
    assert shapes["one.weight"] == [4, 3, 3, 3] and shapes["two.weight"] == [4, 4, 3, 3]
    done = cli("verify", net, "small.onnx", "p.json")
    assert done.exit_code == 0 and done.stdout.startswith("proved"), done.output
    done = cli("apply", "p.json", net, "-o", "again.onnx")
    assert done.exit_code == 0, done.stderr
    assert Path("again.onnx").read_bytes() == Path("small.onnx").read_bytes()
    done = cli("inspect", net, "--json")
    assert json.loads(done.stdout)["model"]["name"] == "net"
    assert cli("explain", net, "one.weight").exit_code == 0


def test_a_shape_may_be_given(net: Path) -> None:
    done = cli("inspect", net, "--shape", "data=1x3x12x16", "--json")
    assert json.loads(done.stdout)["inputs"][0]["shape"] == [1, 3, 12, 16]


def test_the_batch_may_be_dynamic(net: Path) -> None:
    done = cli("run", PIPELINE, net, "-o", "small.onnx", "--dynamic-batch")
    assert done.exit_code == 0, done.stderr
    graph = onnx.load("small.onnx").graph
    for value in (*graph.input, *graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"


def test_a_head_is_an_error_unless_asked(net: Path) -> None:
    net.write_text(NET + 'layer { name: "out" type: "DetectionOutput" bottom: "two" top: "out" }')
    done = cli("inspect", net)
    assert done.exit_code == 2
    assert "net.prototxt:6:" in done.stderr and "layer out (DetectionOutput)" in done.stderr
    done = cli("inspect", net, "--end-at-heads")
    assert done.exit_code == 0
    assert "the graph ends before out (DetectionOutput, line 6)" in done.stderr


def test_options_of_caffe_networks_go_with_no_other_file(net: Path) -> None:
    assert cli("run", PIPELINE, net, "-o", "a.onnx").exit_code == 0
    for options in (["--weights", "x"], ["--phase", "TRAIN"], ["--end-at-heads"]):
        done = cli("inspect", "a.onnx", *options)
        assert done.exit_code == 2 and "go with a .prototxt" in done.stderr

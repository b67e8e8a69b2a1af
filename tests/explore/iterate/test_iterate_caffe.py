"""Caffe networks, trained as a Caffe solver says, prune in rounds like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from iterate_runs import CONFIG

import irprune
from irprune import IrpruneError
from irprune.explore.iterate import iterate, read_config
from irprune.explore.iterate.config import Network

NET = """
layer { name: "data" type: "Input" top: "data" input_param {
  shape { dim: 20 dim: 1 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {
  num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param {
  num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
TABLES = """
[model]
source = "net.prototxt"
[data]
name = "npz"
path = "unused"
[train]
epochs = 3
batch = 20
solver = "solver.prototxt"
[rewind]
epoch = 2
[prune]
method = "iap"
conv = [0.25]
samples = 40
[objective]
rounds = 2
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        "net: 'net.prototxt' base_lr: 0.05 lr_policy: 'fixed' momentum: 0.9 max_iter: 15"
    )
    (tmp_path / "iterate.toml").write_text(TABLES)
    return tmp_path


def test_a_prototxt_and_its_solver(home: Path, data: Path) -> None:
    records = iterate(home / "iterate.toml", home / "run", data=data)
    assert [record["widths"]["conv.weight"] for record in records] == [8, 6, 4]
    last = irprune.load(home / "run" / "round-002" / "model.onnx")
    assert [node.op_type for node in last.ir.graph][-1] == "Softmax"
    assert not isinstance(last.ir.graph.inputs[0].shape[0], int)  # type: ignore[index]
    assert records[0]["accuracy"] > 1 / 3
    assert "the batch that the file fixes" not in (home / "run" / "report.md").read_text()


def test_samples_fill_the_batches_that_a_network_fixes(home: Path, data: Path) -> None:
    """The prototxt states a batch of 20, which its model in ONNX keeps unless asked."""
    irprune.from_caffe(home / "net.prototxt").save(home / "net.onnx")
    fixed = TABLES.replace("net.prototxt", "net.onnx")
    (home / "iterate.toml").write_text(fixed)
    assert len(iterate(home / "iterate.toml", home / "run", data=data)) == 3
    assert "latency are of 20 examples" in (home / "run" / "report.md").read_text()
    (home / "iterate.toml").write_text(fixed.replace("samples = 40", "samples = 30"))
    with pytest.raises(IrpruneError, match=r"e\.toml: prune\.samples: 30 .* 20.*set it to 40"):
        iterate(home / "iterate.toml", home / "other", data=data)
    assert not (home / "other" / "round-000" / "log.jsonl").exists()


def test_the_fillers_draw_by_the_seed(home: Path, data: Path) -> None:
    config = read_config(home / "iterate.toml")
    config = replace(config, objective=replace(config.objective, rounds=1), latency=False)
    found = [
        iterate(config, home / f"run-{k}", home=home, data=data, seed=seed)[0]["loss"]
        for k, seed in enumerate((1, 1, 2))
    ]
    assert found[0] == found[1] != found[2]


def test_a_missing_caffemodel_is_named(home: Path, data: Path) -> None:
    config = replace(
        read_config(home / "iterate.toml"), model=Network("net.prototxt", "given", "x.caffemodel")
    )
    with pytest.raises(IrpruneError, match=r"x\.caffemodel: "):
        iterate(config, home / "run", home=home, data=data)


def test_a_caffemodel_goes_with_a_prototxt() -> None:
    with pytest.raises(IrpruneError, match="model.caffemodel: goes with a prototxt"):
        replace(CONFIG, model=Network("net.onnx", "given", "x.caffemodel"))

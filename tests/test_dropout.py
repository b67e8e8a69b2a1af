"""Dropout that goes is counted, wherever a network comes from and wherever it goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import Net
from torch import nn

import irprune
from irprune import Model
from irprune.dropout import left_out
from irprune.explore.settings import DataSet
from irprune.explore.train import Config, train
from irprune.recipe import Machine, Recipe

PROTOTXT = """input: "x" input_shape { dim: 1 dim: 6 }
layer { name: "one" type: "InnerProduct" bottom: "x" top: "one"
        inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "one" top: "one" }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""


def of_onnx(folder: Path) -> Model:
    net = Net(seed=0)
    x = net.op("Gemm", net.input("N", 6), net.weight(6, 8), name="h")
    net.op("Gemm", net.op("Dropout", x), net.weight(8, 3), name="y")
    return net.model()


def of_torch(folder: Path) -> Model:
    layers = (nn.Linear(6, 8), nn.Dropout(0.4), nn.Dropout(0.0), nn.Linear(8, 3))
    return irprune.from_torch(nn.Sequential(*layers), (torch.zeros(2, 6),))


def of_caffe(folder: Path) -> Model:
    (folder / "net.prototxt").write_text(PROTOTXT)
    return irprune.from_caffe(folder / "net.prototxt", dynamic_batch=True)


@pytest.mark.parametrize("made", [of_onnx, of_torch, of_caffe])
def test_training_says_what_is_left_out(made: object, tmp_path: Path) -> None:
    """Of the pruned network and its file too."""
    assert callable(made)
    model = irprune.run("normalize, prune{ratio=0.5}, compact", made(tmp_path), verify=False).model
    model.save(tmp_path / "small.onnx")
    small = irprune.load(tmp_path / "small.onnx")
    assert left_out(small.ir) == 1
    assert "Dropout" not in {node.op_type for node in small.ir.graph}
    x, y = np.zeros((9, 6), np.float32), np.arange(9) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = DataSet("npz", str(tmp_path / "data.npz"))
    said: list[str] = []
    config = Config(data=data, train=Recipe(epochs=1), machine=Machine("cpu"))
    train(config, small, tmp_path / "run", log=said.append)
    assert "train: Dropout is left out, in training too (layers: 1)" in said


def test_networks_without_dropout_have_none_to_note() -> None:
    net = Net(seed=0)
    net.op("Relu", net.input("N", 6), name="y")
    model = irprune.run("normalize", net.model(), verify=False).model
    assert left_out(model.ir) == 0
    assert "irprune.dropout" not in model.ir.metadata_props

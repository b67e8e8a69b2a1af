"""A small convolutional classifier as a file, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from irprune.cli import main

Cli = Callable[..., Result]


def conv_net(seed: int = 0, batch: int | str = 1) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, Conv, Relu, GlobalAveragePool, Flatten, Gemm on 1x3x8x8."""
    random = np.random.default_rng(seed)
    shapes = {
        "conv1.weight": (32, 3, 3, 3),
        "bn1.weight": (32,),
        "bn1.bias": (32,),
        "bn1.mean": (32,),
        "conv2.weight": (48, 32, 3, 3),
        "conv2.bias": (48,),
        "fc.weight": (5, 48),
        "fc.bias": (5,),
    }
    arrays = {name: random.normal(size=shape) for name, shape in shapes.items()}
    arrays["bn1.var"] = random.uniform(0.5, 2, size=32)
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization",
            ["c1", "bn1.weight", "bn1.bias", "bn1.mean", "bn1.var"],
            ["b1"],
            "bn1",
        ),
        helper.make_node("Relu", ["b1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], "conv2"),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """The classifier in a file of its own folder."""
    path = tmp_path / "net.onnx"
    onnx.save(conv_net(), path)
    return path


@pytest.fixture
def dynamic_net(tmp_path: Path) -> Path:
    """The classifier with a symbolic batch axis."""
    path = tmp_path / "dynamic.onnx"
    onnx.save(conv_net(batch="N"), path)
    return path


@pytest.fixture
def other_net(tmp_path: Path) -> Path:
    """Another checkpoint of the classifier."""
    path = tmp_path / "other.onnx"
    onnx.save(conv_net(seed=1), path)
    return path


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, run in `tmp_path`: `cli("run", "default", path)`."""
    monkeypatch.chdir(tmp_path)

    def invoke(*args: object) -> Result:
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return invoke

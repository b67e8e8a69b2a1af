"""Gradients of a model that changes between two questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import irprune
from irprune.backends.torch.gradients import TorchDifferentiator
from irprune.errors import IrpruneError
from irprune.model import Model

NET = """<ir_version: 8, opset_import: ["": 17]>
    net (float[N, 2] x) => (float[N, 2] y) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"""


def test_new_weights_have_new_gradients(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(NET), tmp_path / "net.onnx")
    model = irprune.load(tmp_path / "net.onnx")
    asker = TorchDifferentiator()

    def asked(of: TorchDifferentiator) -> tuple[np.ndarray, np.ndarray]:
        feeds = {"x": np.eye(2, dtype=np.float32)}
        return of.gradients(model, feeds, np.array([0, 1]), ["w"])["w"]

    before = asked(asker)
    assert np.array_equal(asked(asker)[1], before[1])
    module = irprune.to_torch(model)
    with torch.no_grad():
        module.get_parameter("w").neg_()
    model.update_from(module)
    value, slope = asked(asker)
    assert np.array_equal(value, -before[0])
    assert np.array_equal(slope, asked(TorchDifferentiator())[1])
    assert not np.array_equal(slope, before[1])


def test_what_has_no_counterpart_is_left_out() -> None:
    model = Model.from_proto(onnx.parser.parse_model(NET))
    gradients = TorchDifferentiator().gradients
    feeds, labels = {"x": np.eye(2, dtype=np.float32)}, np.array([0, 1])
    assert gradients(model, feeds, labels, ["nothing"]) == {}
    assert gradients(model, feeds, labels, ["nothing", "w"]).keys() == {"w"}


def test_an_output_without_classes_is_refused() -> None:
    model = Model.from_proto(onnx.parser.parse_model(NET.replace("[N, 2]", "[N, 1, 2]")))
    with pytest.raises(IrpruneError, match=r"shape \[2, 1, 2\] and holds no classes"):
        TorchDifferentiator().gradients(
            model, {"x": np.ones((2, 1, 2), np.float32)}, np.array([0, 1]), ["w"]
        )

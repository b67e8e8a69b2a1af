"""Fixtures that build a model from text and compare what models compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import parser

from irprune.model import Model

Feeds = Mapping[str, np.ndarray]


@pytest.fixture
def parse() -> Callable[..., Model]:
    """Return a function from a graph in onnx's text syntax to a model."""

    def parse(graph: str, opset: int = 17, ir_version: int = 8) -> Model:
        header = f'<ir_version: {ir_version}, opset_import: ["": {opset}]> '
        return Model.from_proto(parser.parse_model(header + graph))

    return parse


def outputs(model: Model, feeds: Feeds) -> dict[str, np.ndarray]:
    """Run a model with the optimisations of onnxruntime off."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    proto = ir.serde.serialize_model(model.ir)
    proto.ir_version = max(proto.ir_version, 4)  # before 4, initializers had to be inputs too
    data = proto.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def feeds_for(model: Model, size: int) -> dict[str, np.ndarray]:
    """Return random inputs; dynamic axes have the given length plus their place."""
    rng = np.random.default_rng(size)
    feeds = {}
    for value in model.ir.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        shape = [d if isinstance(d, int) else size + k for k, d in enumerate(value.shape.dims)]
        feeds[value.name] = rng.uniform(-2, 2, shape).astype(value.dtype.numpy())
    return feeds


@pytest.fixture
def same() -> Callable[..., None]:
    """Return a function that asserts that two models agree, at two sizes of dynamic axes."""

    def same(before: Model, after: Model, tolerance: float = 0, feeds: Feeds | None = None) -> None:
        for given in [feeds_for(before, 2), feeds_for(before, 5)] if feeds is None else [feeds]:
            expected, got = outputs(before, given), outputs(after, given)
            assert list(got) == list(expected)
            for name, array in expected.items():
                assert got[name].dtype == array.dtype and got[name].shape == array.shape
                scale = max(float(np.abs(array).max(initial=0)), 1e-30)
                np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * scale)

    return same

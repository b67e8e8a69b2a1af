"""Every network of the shared folder imports; the trained ones do what they were trained for."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from caffe_run import run

from irprune.errors import IrpruneError
from irprune.frontends.caffe import Options, import_caffe

pytestmark = pytest.mark.shared

SAID: dict[str, dict[str, Any]] = {
    "deeplab_resnet34.prototxt": {"shapes": {"data": (1, 3, 226, 226)}},
    "mnist_siamese_train_test.prototxt": {"shapes": {"pair_data": (4, 2, 28, 28)}},
    "mnist_autoencoder.prototxt": {"stages": ("test-on-test",)},
    "MobileNetSSD_train.prototxt": {"phase": "TRAIN"},
}
"""What these files leave to the user."""

HEADED = ("faceboxes", "mobilenet_ssd", "mobilenet_yolo", "retinaface")
"""Networks with layers that ONNX cannot hold."""

TRAINED = (
    "lenet_ethereon", "mtcnn_det1", "mtcnn_det3", "retinaface_widerface", "rfb320", "samplenet",
    "squeezenet_deep_compression", "v1_cifar10_full_everpeace", "v1_lenet_everpeace",
    "yoloface_50k",
)  # fmt: skip


def test_every_network_imports(shared: Path) -> None:
    paths = [p for p in (shared / "caffe").rglob("*.prototxt") if "solver" not in p.name]
    assert len(paths) > 60
    for path in paths:
        options = SAID.get(path.name, {})
        found = import_caffe(path, options=Options(end_at_heads=True, **options))
        assert len(found.model.ir.graph) and found.model.ir.graph.outputs, path
        assert bool(found.ended) == any(word in str(path) for word in HEADED), path
        if found.ended:
            with pytest.raises(IrpruneError, match="--end-at-heads"):
                import_caffe(path, options=Options(**options))


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_give_sane_numbers(shared: Path, name: str) -> None:
    folder = shared / "caffe" / "trained" / name
    (path,) = (p for p in folder.glob("*.prototxt") if "trainval" not in p.name)
    (weights,) = folder.glob("*.caffemodel")
    said: list[str] = []
    found = import_caffe(path, weights, Options(end_at_heads=True, warn=said.append))
    assert not [line for line in said if "the graph ends" not in line]
    onnx.checker.check_model(ir.serde.serialize_model(found.model.ir), full_check=True)
    random = np.random.default_rng(0)
    shapes = {v.name or "": tuple(map(int, v.shape or ())) for v in found.model.ir.graph.inputs}
    outputs = run(found, {name: random.uniform(0, 1, shape) for name, shape in shapes.items()})
    for array in outputs.values():
        assert np.isfinite(array).all() and array.std() > 0


def images(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(data[4 + 4 * k : 8 + 4 * k], "big") for k in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


@pytest.mark.parametrize("name", ["lenet_ethereon", "v1_lenet_everpeace"])
def test_lenet_knows_its_digits(shared: Path, name: str) -> None:
    folder = shared / "caffe" / "trained" / name
    weights = folder / "lenet_iter_10000.caffemodel"
    found = import_caffe(folder / "lenet.prototxt", weights, Options(dynamic_batch=True))
    x = images(shared / "data/mnist/t10k-images-idx3-ubyte.gz")[:, None] / 256
    labels = images(shared / "data/mnist/t10k-labels-idx1-ubyte.gz")
    (scores,) = run(found, {"data": x}).values()
    assert (scores.argmax(1) == labels).mean() >= 0.99

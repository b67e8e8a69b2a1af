"""Real classifiers of several exporters, most with a fixed batch, lose channels and train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irprune import IrpruneError, api
from irprune.explore.settings import DataSet
from irprune.explore.train import Config, train
from irprune.frontends.caffe import from_caffe
from irprune.model import Model
from irprune.recipe import Machine, Optimizer, Recipe

TRAINED = {
    "fsanet-1x1-iter-688590": (3, 64, 64),
    "light_shufflenet": (3, 224, 224),
    "mnist_cntk": (1, 28, 28),
    "resnet20_cifar10": (3, 32, 32),
    "samplenet": (3, 32, 32),
    "unitree_g1_policy": (480,),
    "caffe": (1, 28, 28),
}
REFUSED = {
    "keypoint_classifier": "output class_ids is INT64",
    "magika_standard_v2_1": "input bytes takes INT32",
    "silero_vad": "the model has 3 inputs",
    "yunet_n_320_320": "output cls_8 is FLOAT 1x1600x1",
}


def _config(folder: Path, shape: tuple[int, ...]) -> Config:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, *shape)).astype(np.float32), np.arange(8) % 2
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    recipe = Recipe(epochs=1, batch=4, optimizer=Optimizer("sgd", lr=1e-4))
    return Config(
        data=DataSet("npz", str(folder / "data.npz")), train=recipe, machine=Machine("cpu")
    )


def _load(shared: Path, name: str) -> Model:
    if name != "caffe":
        return api.load(shared / "models" / "onnx" / f"{name}.onnx")
    folder = shared / "caffe" / "trained" / "lenet_ethereon"
    return from_caffe(folder / "lenet.prototxt", folder / "lenet_iter_10000.caffemodel")


@pytest.mark.shared
@pytest.mark.parametrize("name", TRAINED)
def test_real_classifiers_are_pruned_and_trained(shared: Path, tmp_path: Path, name: str) -> None:
    pipeline = "normalize, prune{ratio=0.2 criterion=l1 scope=local}, compact"
    small = api.run(pipeline, _load(shared, name), verify=False).model
    done = train(_config(tmp_path, TRAINED[name]), small, tmp_path / "run")
    assert np.isfinite(done.after.loss)
    assert done.after.loss != done.before.loss
    done.model.save(tmp_path / "out.onnx")
    again = train(_config(tmp_path, TRAINED[name]), api.load(tmp_path / "out.onnx"), tmp_path / "2")
    assert again.before.loss == pytest.approx(done.after.loss, rel=1e-4)


@pytest.mark.shared
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_classifier_is_refused(shared: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(IrpruneError, match=f"{name}.onnx: {REFUSED[name]}"):
        train(_config(tmp_path, (6,)), _load(shared, name), tmp_path / "run")

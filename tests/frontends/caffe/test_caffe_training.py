"""Caffe networks trained by their solvers: multipliers of rates, and weights to start from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from caffe_run import imported
from caffe_schema import MESSAGES
from click.testing import CliRunner, Result

import irprune
from irprune.cli import main
from irprune.errors import IrpruneError
from irprune.explore.iterate import read_config
from irprune.frontends.caffe import from_caffe
from irprune.multipliers import Multipliers, multipliers

NET = """input: "x" input_shape { dim: 1 dim: 6 }
layer { name: "one" type: "InnerProduct" bottom: "x" top: "one" ONE
        inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
CONFIG = """
[data]
name = "npz"
path = "data.npz"
[train]
epochs = 1
batch = 8
solver = "solver.prototxt"
[machine]
accelerator = "cpu"
"""
SOLVER = "base_lr: 0.1 lr_policy: 'fixed' max_iter: 1\n"
FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def net(one: str) -> str:
    return NET.replace("ONE", one)


def rates(text: str) -> dict[str, Multipliers]:
    return multipliers(imported(text).model.ir.graph)


def test_multipliers_of_every_syntax_are_read() -> None:
    wanted = {"one.weight": Multipliers(lr=0), "one.bias": Multipliers(lr=2, decay=0)}
    assert rates(net("param { lr_mult: 0 } param { lr_mult: 2 decay_mult: 0 }")) == wanted
    v1 = """input: "x" input_dim: 1 input_dim: 6 input_dim: 1 input_dim: 1
        layers { name: "one" type: INNER_PRODUCT bottom: "x" top: "y" blobs_lr: 0 blobs_lr: 2
        weight_decay: 1 weight_decay: 0 inner_product_param { num_output: 8 } }"""
    assert rates(v1) == wanted
    assert rates(net("param { lr_mult: 1 decay_mult: 1 }")) == {}


def test_statistics_are_not_those_of_the_scale_behind_them() -> None:
    frozen = "param { lr_mult: 0 } " * 3
    found = rates(
        f"""input: "x" input_shape {{ dim: 1 dim: 6 dim: 2 dim: 2 }}
        layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "bn" {frozen} }}
        layer {{ name: "scale" type: "Scale" bottom: "bn" top: "bn" param {{ decay_mult: 0 }}
        scale_param {{ bias_term: true }} }}"""
    )
    assert found["scale.weight"] == Multipliers(decay=0)
    assert found.keys() == {"scale.weight", "bn.running_mean", "bn.running_var"}


def sharing(first: str, second: str) -> str:
    return "input: 'x' input_shape { dim: 1 dim: 3 }" + "".join(
        f"""layer {{ name: "{top}" type: "InnerProduct" bottom: "x" top: "{top}"
        param {{ name: "w" {said} }} inner_product_param {{ num_output: 2 bias_term: false }} }}"""
        for top, said in (("one", first), ("two", second))
    )


def test_layers_that_share_a_blob_say_its_rate_once_or_alike() -> None:
    wanted = {"one.weight": Multipliers(lr=0)}
    for first, second in (("lr_mult: 0", ""), ("", "lr_mult: 0"), ("lr_mult: 0", "lr_mult: 0")):
        assert rates(sharing(first, second)) == wanted
    with pytest.raises(IrpruneError, match="layer two .*the blob 'w' with `lr_mult` 0, but has 2"):
        rates(sharing("lr_mult: 0", "lr_mult: 2"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(8, 6)).astype(np.float32), random.integers(0, 3, 8)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (tmp_path / "train.toml").write_text(CONFIG)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "net.prototxt").write_text(net(""))
    return tmp_path


def trained(home: Path, model: str = "net.prototxt", *more: str) -> Result:
    arguments = ["train", f"{home}/train.toml", f"{home}/{model}", "-o", f"{home}/out.onnx", *more]
    return CliRunner().invoke(
        main, [*arguments, "--folder", f"{home}/run-{len(list(home.iterdir()))}"]
    )


def changes(home: Path, model: str = "net.prototxt", *more: str) -> dict[str, np.ndarray]:
    done = trained(home, model, *more)
    assert done.exit_code == 0, done.output
    before = irprune.load if model.endswith(".onnx") else from_caffe
    start, end = before(home / model).tensors(), irprune.load(home / "out.onnx").tensors()
    return {name: end[name].numpy() - tensor.numpy() for name, tensor in start.items()}


def test_training_follows_the_multipliers(home: Path) -> None:
    plain = changes(home)
    assert all(change.any() for change in plain.values())
    (home / "net.prototxt").write_text(net("param { lr_mult: 2 } param { lr_mult: 0.5 }"))
    own = changes(home)
    np.testing.assert_allclose(own["one.weight"], 2 * plain["one.weight"], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(own["one.bias"], plain["one.bias"] / 2, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(own["two.weight"], plain["two.weight"])


def test_frozen_layers_stay_and_are_told(home: Path) -> None:
    (home / "net.prototxt").write_text(net(FROZEN))
    found = changes(home)
    assert not found["one.weight"].any() and not found["one.bias"].any()
    assert found["two.weight"].any()
    (home / "out.onnx").rename(home / "again.onnx")
    done = trained(home, "again.onnx")
    assert "train: frozen by lr_mult: one.bias, one.weight" in done.stderr


def test_other_multipliers_are_another_training(home: Path) -> None:
    arguments = ["train", f"{home}/train.toml", f"{home}/net.prototxt", "-o", f"{home}/out.onnx"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    (home / "net.prototxt").write_text(net(FROZEN))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and "another run: network.multipliers differ; choose" in done.stderr


def save_weights(path: Path, number: float) -> None:
    message = MESSAGES["Net"](name="net")
    for name, shapes in (("one", ((8, 6), (8,))), ("two", ((3, 8), (3,)))):
        layer = message.layer.add()
        layer.name = name
        for shape in shapes:
            blob = layer.blobs.add()
            blob.data.extend([number] * int(np.prod(shape)))
            blob.shape.dim.extend(shape)
    path.write_bytes(message.SerializeToString())


def test_a_solver_s_weights_are_what_training_starts_from(home: Path) -> None:
    save_weights(home / "old.caffemodel", 0.25)
    save_weights(home / "other.caffemodel", 0.5)
    (home / "net.prototxt").write_text(net(FROZEN))
    (home / "solver.prototxt").write_text(SOLVER + "weights: 'models/old.caffemodel'")

    def frozen(*more: str) -> float:
        done = trained(home, "net.prototxt", *more)
        assert done.exit_code == 0, done.output
        return float(irprune.load(home / "out.onnx").tensors()["one.bias"].numpy().max())

    assert frozen() == 0.25
    assert frozen("--weights", f"{home}/other.caffemodel") == 0.5
    done = trained(home, "out.onnx", "-o", f"{home}/again.onnx")
    assert "old.caffemodel is not read" in done.stderr and done.exit_code == 0


def test_weights_that_nothing_can_start_from_are_named(home: Path) -> None:
    (home / "solver.prototxt").write_text(SOLVER + "weights: 'models/old.caffemodel'")
    done = trained(home)
    assert done.exit_code == 2
    assert f"{home}/old.caffemodel: cannot read the weights" in done.stderr
    (home / "solver.prototxt").write_text(SOLVER + "weights: 'a.caffemodel,b.caffemodel'")
    done = trained(home)
    assert done.exit_code == 2 and "training starts from one caffemodel; name one" in done.stderr


def test_iterate_starts_from_them_too(home: Path) -> None:
    (home / "solver.prototxt").write_text(SOLVER + "weights: 'old.caffemodel'")
    given = CONFIG + "[rewind]\nepoch = 0\n[model]\n"

    def start(model: str) -> str | None:
        (home / "iterate.toml").write_text(given + model)
        return read_config(home / "iterate.toml").model.caffemodel

    assert start("source = 'net.prototxt'") == f"{home}/old.caffemodel"
    assert start("source = 'net.prototxt'\ncaffemodel = 'new.caffemodel'") == "new.caffemodel"
    assert start("source = 'net.onnx'") is None

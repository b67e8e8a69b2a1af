"""One training by a TOML file: of given or fresh weights, distilled or not, and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from strategies import Net

import irprune
from irprune import IrpruneError, Model
from irprune.backends.torch.training import loop
from irprune.cli import main
from irprune.explore.settings import DataSet, read_settings
from irprune.explore.train import Config, train
from irprune.recipe import Distillation, Machine, Recipe

EXAMPLES = Path(__file__).parents[2] / "examples" / "train"
TABLES = """
[data]
name = "npz"
path = "data.npz"
[train]
epochs = 2
batch = 20
[train.optimizer]
name = "nadam"
lr = 0.01
[machine]
accelerator = "cpu"
"""


def network(seed: int, hidden: int = 8) -> Model:
    net = Net(seed=seed)
    x = net.op("Gemm", net.input("N", 6), net.weight(6, hidden), net.weight(hidden))
    net.op("Gemm", net.op("Relu", x), net.weight(hidden, 3), net.weight(3), name="y")
    return net.model()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a data set, the settings of a training, and a network."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 160)
    x = (random.normal(size=(160, 6)) + y[:, None]).astype(np.float32)
    arrays = {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:], "y_test": y[100:]}
    np.savez(tmp_path / "data.npz", **arrays)  # type: ignore[arg-type]
    (tmp_path / "train.toml").write_text(TABLES)
    network(0).save(tmp_path / "net.onnx")
    return tmp_path


@pytest.fixture
def config(home: Path) -> Config:
    data, machine = DataSet("npz", str(home / "data.npz")), Machine("cpu")
    return Config(data=data, train=Recipe(epochs=2, batch=20), machine=machine)


def weights(model: Model) -> dict[str, np.ndarray]:
    found = {name: v.const_value for name, v in model.ir.graph.initializers.items()}
    return {name: tensor.numpy() for name, tensor in found.items() if tensor is not None}


def command(home: Path, *more: str) -> list[str]:
    return ["train", f"{home}/train.toml", f"{home}/net.onnx", "-o", f"{home}/out.onnx", *more]


def refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_can_be_read(path: Path) -> None:
    assert read_settings(Config, path).data.path is not None


def test_the_command_writes_the_trained_network(home: Path) -> None:
    before = (home / "net.onnx").read_bytes()
    done = CliRunner().invoke(main, command(home, "--json"))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["epochs"] == 2
    assert told["after"]["loss"] < told["before"]["loss"]
    assert (home / "net.onnx").read_bytes() == before
    rows = (home / "out.onnx.training" / "log.jsonl").read_text().splitlines()
    assert [json.loads(row)["epoch"] for row in rows if "accuracy" in row] == [1, 2]
    score = train(home / "train.toml", irprune.load(home / "out.onnx"), home / "again").before
    assert (score.accuracy, score.loss) == pytest.approx([*told["after"].values()], abs=1e-5)


def test_the_model_that_is_given_stays(config: Config, tmp_path: Path) -> None:
    model, same = network(0), network(0)
    trained = train(config, model, tmp_path / "run").model
    assert all(np.array_equal(a, weights(same)[n]) for n, a in weights(model).items())
    assert not all(np.array_equal(a, weights(same)[n]) for n, a in weights(trained).items())


def test_weights_that_nodes_compute_are_trained(config: Config, tmp_path: Path) -> None:
    net = Net()
    half = numpy_helper.from_array(np.array([0.5], np.float32))
    w = net.op("ConstantOfShape", net.ints(6, 3), value=half, name="w")
    net.op("MatMul", net.input("N", 6), w, name="y")
    done = train(config, net.model(), tmp_path / "run")
    assert done.after.loss < done.before.loss
    assert weights(done.model)["w"].std() > 0


def test_a_killed_training_goes_on_to_the_same_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(home / "train.toml", network(0), home / "whole")
    steps: list[int] = []

    class Killed(BaseException):
        pass

    def counted(recipe: Recipe, step: int, process: int = 0) -> int:
        if len(steps) == 17:  # an epoch of 5 steps draws 5 seeds of examples, then 5 of dropout
            raise Killed
        steps.append(step)
        return seed_of(recipe, step, process)

    seed_of = loop.seed_of
    monkeypatch.setattr(loop, "seed_of", counted)
    with pytest.raises(Killed):
        train(home / "train.toml", network(0), home / "cut")
    monkeypatch.undo()
    assert steps[-1] == 6
    assert train(home / "train.toml", network(0), home / "cut").after == whole.after


def test_what_is_done_is_not_done_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = train(config, network(0), tmp_path / "run")
    monkeypatch.setattr(loop, "seed_of", None)
    before = set((tmp_path / "run").iterdir())
    (tmp_path / "run" / ".checkpoint.pt.abcdefgh").touch()
    said: list[str] = []
    again = train(config, network(0), tmp_path / "run", log=said.append)
    assert "no step was left to do" in said[-1]
    assert (again.after, again.epochs) == (once.after, 2)
    assert set((tmp_path / "run").iterdir()) == before
    assert all(np.array_equal(a, weights(again.model)[n]) for n, a in weights(once.model).items())


def test_fresh_weights_do_not_depend_on_the_given_ones(config: Config, tmp_path: Path) -> None:
    fresh = replace(config, weights="fresh")
    one = train(fresh, network(0), tmp_path / "one")
    two = train(fresh, network(1), tmp_path / "two")
    other = train(fresh, network(0), tmp_path / "other", seed=1)
    assert one.before == two.before != other.before
    assert one.after == two.after
    assert train(config, network(1), tmp_path / "given").before != one.before


def test_a_teacher_teaches(config: Config, tmp_path: Path) -> None:
    taught = replace(config, train=replace(config.train, distillation=Distillation(0.9)))
    teacher = train(config, network(1, 32), tmp_path / "teacher").model
    one = train(taught, network(0), tmp_path / "one", teacher=teacher)
    two = train(taught, network(0), tmp_path / "two", teacher=network(2, 32))
    assert one.teacher is not None
    assert one.after != two.after
    with pytest.raises(IrpruneError, match="another run: teacher.weights differ"):
        train(taught, network(0), tmp_path / "one", teacher=network(2, 32))


@pytest.mark.parametrize(
    ("weight", "teacher", "message"),
    [(0.5, False, "nobody teaches.*name a teacher"), (0.0, True, "has no weight.*leave the teac")],
)
def test_teachers_and_recipes_must_agree(
    config: Config, tmp_path: Path, weight: float, teacher: bool, message: str
) -> None:
    config = replace(config, train=replace(config.train, distillation=Distillation(weight)))
    with pytest.raises(IrpruneError, match=message):
        train(config, network(0), tmp_path / "r", teacher=network(1) if teacher else None)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda c: replace(c, train=replace(c.train, epochs=3)), "run: train.epochs differ"),
        (lambda c: replace(c, weights="fresh"), "another run: weights, network.weights differ"),
        (
            lambda c: replace(c, machine=Machine("cpu", precision="bf16-mixed")),
            "another run: machine.precision differ",
        ),
    ],
)
def test_a_folder_is_for_one_training(
    config: Config, tmp_path: Path, changed: Callable[[Config], Config], message: str
) -> None:
    train(config, network(0), tmp_path / "run")
    with pytest.raises(IrpruneError, match=message):
        train(changed(config), network(0), tmp_path / "run")
    with pytest.raises(IrpruneError, match="another run: network.weights differ; seed a factory"):
        train(config, network(1), tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(IrpruneError, match=r"run\.json: it is missing"):
        train(config, network(0), tmp_path / "run")


def test_a_training_that_did_not_begin_may_be_mended(config: Config, tmp_path: Path) -> None:
    steps = replace(config, train=replace(config.train, steps=3))
    with pytest.raises(IrpruneError, match="set epochs = 1"):
        train(steps, network(0), tmp_path / "run")
    mended = replace(config, train=replace(config.train, epochs=1, steps=3))
    assert train(mended, network(0), tmp_path / "run").epochs == 1


def test_the_recipe_s_seed_draws_the_fillers_of_a_caffe_network(home: Path) -> None:
    (home / "net.onnx").rename(home / "net.prototxt")
    (home / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 6 } } } '
        'layer { name: "y" type: "InnerProduct" bottom: "x" top: "y" '
        'inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }'
    )

    def loss(name: str, *more: str) -> float:
        arguments = ["train", f"{home}/train.toml", f"{home}/net.prototxt", "-o", f"{home}/{name}"]
        done = CliRunner().invoke(main, [*arguments, "--json", *more])
        assert done.exit_code == 0, done.output
        found: float = json.loads(done.stdout)["before"]["loss"]
        return found

    (home / "train.toml").write_text(TABLES.replace("batch = 20", "batch = 20\nseed = 3"))
    assert loss("a.onnx") == loss("b.onnx", "--seed", "3") != loss("c.onnx", "--seed", "0")


def test_bad_calls_are_named(home: Path) -> None:
    refused(command(home, "--data", f"{home}/none.npz"), "none.npz: ")
    teacher = command(home, "--teacher", f"{home}/net.onnx")
    refused(teacher, f"{home}/train.toml: train.distillation: the teacher has no weight")
    refused(command(home, "--seed", "4294967296"), "'--seed': 4294967296 is not in the range")
    refused(command(home, "--weights", "x.caffemodel"), "go with a .prototxt")
    refused(command(home, "-o", f"{home}/net.onnx"), "is also an input of this command")
    refused(command(home, "--folder", f"{home}/new/../out.onnx"), "out.onnx: is also the folder")
    (home / "train.toml").write_text(TABLES + "[prune]\n")
    refused(command(home), "train.toml: prune: unknown key")
    (home / "train.toml").write_text(TABLES.replace("epochs = 2\n", ""))
    refused(command(home), "train.toml: train.epochs: is missing")
    assert not (home / "out.onnx").exists()


def test_a_data_factory_may_lie_beside_the_configuration(home: Path) -> None:
    (home / "beside_facts.py").write_text(
        "import numpy as np\ndef make(path):\n    return dict(np.load(path))\n"
    )
    path = home / "train.toml"
    whole = train(path, network(0), home / "whole").after
    path.write_text(TABLES.replace('"npz"', '"beside_facts:make"'))
    assert train(path, network(0), home / "made").after == whole


def test_a_caffe_network_without_its_weights_teaches_nobody(home: Path) -> None:
    """Its fillers would draw them; --weights are MODEL's."""
    (home / "train.toml").write_text(TABLES + "[train.distillation]\nweight = 0.5\n")
    (home / "t.prototxt").write_text("")
    message = "t.prototxt: has no weights to teach by; write it with them: irprune run normalize"
    refused(command(home, "--teacher", f"{home}/t.prototxt"), message)


def test_several_processes_train_as_one(home: Path) -> None:
    """Each of them runs the command; the first one writes, and tells."""
    one = CliRunner().invoke(main, command(home, "--json"))
    (home / "train.toml").write_text(TABLES + "devices = 2\nstrategy = 'ddp'\n")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    several = [sys.executable, *launcher, "-m", "irprune", *command(home, "--json")]
    several += ["-o", f"{home}/two.onnx"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    two = subprocess.run(several, env=environment, capture_output=True, text=True)
    assert two.returncode == 0, two.stderr
    found, wanted = json.loads(two.stdout), json.loads(one.stdout)
    for part in ("before", "after"):
        assert found[part] == pytest.approx(wanted[part], abs=1e-5)
    for name, array in weights(irprune.load(home / "two.onnx")).items():
        assert np.allclose(array, weights(irprune.load(home / "out.onnx"))[name], atol=1e-5)

"""`irprune specs`: what it tells, and how it refuses what makes no sense."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusal import Cli, refused, refused_at

NET = """input: "x" input_shape { dim: 1 dim: 2 }
layer { name: "a" type: "ReLU" bottom: "x" top: "a" module: "stem" }
layer { name: "b" type: "ReLU" bottom: "a" top: "b" module: "stem" }
layer { name: "c" type: "ReLU" bottom: "b" top: "c" }
layer { name: "d" type: "ReLU" bottom: "c" top: "d" module: "head" }
"""
SOLVER = """base_lr: 0.5 lr_policy: "step" gamma: 0.1 stepsize: 10
max_iter: 25 weight_decay: 0.0005 type: "Adam"
"""
META = """machines = 4
dataset = { name = "cub", directory = "data" }
[pretrain]
learning-rate = 0.2
iterations = 10
batch-size = 32
[finetune]
learning-rate = 0.001
iterations = 30
batch-size = 32
"""
OBJECTIVE = "min ModelSize\nconstraint Accuracy > 0.8\n"


def test_all_four(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("configs=[[0.3, 0], [0.5, 0],\n [0.3, 0.0]]")
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "o.txt").write_text(OBJECTIVE)
    (tmp_path / "solver.prototxt").write_text(SOLVER + "fancy: 1")
    (tmp_path / "meta.toml").write_text(META)
    args = [
        *("specs", "--subspace", "s.txt", "--network", "net.prototxt", "--objective", "o.txt"),
        *("--solver", "solver.prototxt", "--meta", "meta.toml"),
    ]
    done = cli(*args)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "subspace   2 configurations of 2 modules, removing 0, 0.3, 0.5",
        "objective  min ModelSize, constraint Accuracy > 0.8",
        "solver     Adam, 25 iterations, learning rate 0.5 to 0.005 (step)",
        "meta       cub in data, 4 machines, pretrain 10 steps of 32 at 0.2, "
        "finetune 30 steps of 32 at 0.001",
    ]
    assert done.stderr.splitlines() == [
        "configuration 2 repeats configuration 0: it is left out",
        "solver.prototxt:3:8: unknown field `fancy`",
    ]
    facts = json.loads(cli(*args, "--json").stdout)
    assert facts["subspace"]["names"] == ["stem", "head"]
    assert facts["solver"]["last_rate"] == pytest.approx(0.005)
    assert facts["meta"]["finetune"]["iterations"] == 30


def test_a_rate_beyond_all_numbers_is_told(cli: Cli, tmp_path: Path) -> None:
    text = "base_lr: 1 lr_policy: 'exp' gamma: 10 max_iter: 99999999999999999999"
    (tmp_path / "s.prototxt").write_text(text)
    done = cli("specs", "--solver", "s.prototxt", "--json")
    assert json.loads(done.stdout)["solver"]["last_rate"] is None


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((), "nothing to read; give --subspace"),
        (("-m", "3", "--objective", "o.txt"), "go with --subspace"),
        (("--objective", "none.txt"), "none.txt: cannot read the file: No such file"),
    ],
)
def test_bad_usage(cli: Cli, tmp_path: Path, args: tuple[str, ...], reason: str) -> None:
    assert reason in refused(cli, "specs", *args)


def test_a_network_must_name_modules(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("[[0.3, 0]]")
    (tmp_path / "net.prototxt").write_text(NET.replace("module", "modul"))
    message = refused(cli, "specs", "--subspace", "s.txt", "--network", "net.prototxt")
    assert message.startswith("error: net.prototxt: no layer names its module")


@pytest.mark.parametrize(
    ("name", "text", "place", "reason"),
    [
        # a subspace of the wrong length
        ("s.txt", "configs=[[0.3, 0, 0],\n [0.5, 0]]", (1, 10), "configuration 0 has 3 rates, the"),
        ("s.txt", "[0.3, 0]\n[0.5, 0, 0.3]", (2, 1), "configuration 1 has 3 rates, the network"),
        ("s.toml", "configs = [\n  [0.3, 0],\n  [0.5],\n]", (3, 3), "configuration 1 has 1 rates"),
        ("s.json", '{"configs": [[0.3, 0],\n [0.5]]}', (2, 2), "configuration 1 has 1 rates"),
        ("s.json", "[[0.3, 0],\n [0.5]]", (2, 2), "configuration 1 has 1 rates"),
        # rates outside [0, 1)
        ("s.txt", "[[0.3, 0],\n [0.5, 1]]", (2, 8), "rate 1 of configuration 1 is 1, outside"),
        ("s.txt", "[[0.3, -0.1]]", (1, 8), "rate 1 of configuration 0 is -0.1, outside [0, 1)"),
        ("s.toml", "configs = [\n  [0.3, 1.5],\n]", (2, 9), "rate 1 of configuration 0 is 1.5"),
        ("s.toml", "configs = [[0.3, nan]]", (1, 18), "rate 1 of configuration 0 is nan"),
        ("s.json", '{"configs": [[0.3, 30]]}', (1, 20), "rate 1 of configuration 0 is 30"),
        # other texts
        ("s.txt", "configs=[[0.3, 0]", (1, 9), "expected a list of lists: '[' was never closed"),
        ("s.txt", "import os", (1, 1), "only lists of numbers are read, nothing is executed"),
        ("s.txt", "[[0.3, f(x)]]", (1, 8), "a rate must be a number"),
        ("s.toml", 'rates = "kept"\nconfigs = [[1, 1]]', (1, 9), "rates are fractions removed"),
        ("s.json", '{"configs": [[0.3, 0]', (1, 22), "not JSON"),
    ],
)
def test_a_bad_subspace(
    cli: Cli, tmp_path: Path, name: str, text: str, place: tuple[int, int], reason: str
) -> None:
    Path(name).write_text(text)
    Path("net.prototxt").write_text(NET)
    for modules in (("-m", 2), ("--network", "net.prototxt")):
        args = ("specs", "--subspace", name, *modules)
        assert refused_at(cli, (Path(name), *place), *args).startswith(reason)


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


class _Opens:
    def __reduce__(self) -> Any:
        return open, ("pwned", "w")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (_Runs(), ".system`"),
        ([[0.3, 0.1], [_Runs(), 0.2]], ".system`"),
        (_Opens(), "open`"),
        (np.array([[_Runs(), 0.1]], dtype=object), "arbitrary objects"),
    ],
)
@pytest.mark.parametrize("name", ["s.pkl", "s"])
def test_a_pickle_that_imports(
    cli: Cli, tmp_path: Path, name: str, value: Any, reason: str, protocol: int
) -> None:
    Path(name).write_bytes(pickle.dumps(value, protocol))
    message = refused(cli, "specs", "--subspace", name, "-m", 2)
    assert message.startswith(f"error: {name}: this pickle holds ")
    assert reason in message
    assert "only lists, tuples, numbers and numpy arrays are read" in message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([[0.3, 0, 0]], "configuration 0 has 3 rates, the network has 2"),
        (np.array([[0.3, 1.0]]), "rate 1 of configuration 0 is 1.0, outside [0, 1)"),
        ([[0.3, -1]], "rate 1 of configuration 0 is -1, outside [0, 1)"),
    ],
)
def test_a_pickle_of_other_rates(cli: Cli, tmp_path: Path, value: Any, reason: str) -> None:
    Path("s.pkl").write_bytes(pickle.dumps(value))
    assert reason in refused(cli, "specs", "--subspace", "s.pkl", "-m", 2)
    Path("s.pkl").write_bytes(pickle.dumps(value)[:-5])
    assert "this is no complete pickle" in refused(cli, "specs", "--subspace", "s.pkl")


@pytest.mark.parametrize(
    ("name", "text", "place", "reason"),
    [
        ("o.txt", "min ModelSize\nmax ModelSize", (2, 5), "`max ModelSize` contradicts `min"),
        (
            "o.txt",
            "min MACs\nconstraint Accuracy > 0.9\nconstraint Accuracy < 80%",
            (3, 12),
            "`Accuracy < 0.8` contradicts `Accuracy > 0.9`",
        ),
        ("o.txt", "min MACs\nconstraint Accuracy > 1", (2, 23), "`Accuracy > 1` can never hold"),
        (
            "o.toml",
            'min = "MACs"\nconstraints = ["ModelSize < 10%",\n  "ModelSize > 20%"]',
            (3, 4),
            "`ModelSize > 20%` contradicts `ModelSize < 10%`",
        ),
        ("o.json", '{"min": "MACs",\n "max": "MACs"}', (2, 9), "`max MACs` contradicts"),
        ("o.txt", "min Size", (1, 5), "unknown metric `Size`"),
        ("o.txt", "constraint Accuracy > 0.8", (1, 26), "the objective has no goal"),
    ],
)
def test_a_contradictory_objective(
    cli: Cli, tmp_path: Path, name: str, text: str, place: tuple[int, int], reason: str
) -> None:
    Path(name).write_text(text)
    found = refused_at(cli, (Path(name), *place), "specs", "--objective", name)
    assert found.startswith(reason), found


@pytest.mark.parametrize(
    ("option", "name", "text", "place", "reason"),
    [
        ("--solver", "s.prototxt", SOLVER + "net_param {", (3, 11), "this `{` is never closed"),
        ("--solver", "s.prototxt", SOLVER.replace("step", "stepp", 1), (1, 25), "`lr_policy` can"),
        ("--solver", "s.prototxt", SOLVER.replace("25", "-25"), (2, 11), "`max_iter` must be at"),
        ("--solver", "s.prototxt", NET, (1, 1), "this is a network, not a solver"),
        ("--meta", "m.toml", META.replace("4", "0", 1), (1, 12), "`machines` must be positive"),
        ("--meta", "m.toml", META.replace("= 10", "= ten"), (5, 14), "not TOML: Invalid value"),
    ],
)
def test_bad_solvers_and_meta_data(
    cli: Cli,
    tmp_path: Path,
    option: str,
    name: str,
    text: str,
    place: tuple[int, int],
    reason: str,
) -> None:
    Path(name).write_text(text)
    assert refused_at(cli, (Path(name), *place), "specs", option, name).startswith(reason)


@pytest.mark.parametrize("value", ["1.5", "1", "-0.1", "x"])
def test_a_bad_rate_in_a_pipeline(cli: Cli, net: Path, value: str) -> None:
    pipeline = f"prune{{seed=1 ratio={value}}}, compact"
    message = refused(cli, "run", pipeline, net, "-o", "out.onnx")
    assert message.splitlines()[1:] == [f"  {pipeline}", " " * 21 + "^"]


@pytest.mark.parametrize("rates", ["0.5,1", "-0.1", "nan"])
def test_bad_rates_of_a_sample(cli: Cli, tmp_path: Path, rates: str) -> None:
    args = ("subspace", "sample", "-m", 2, "-n", 3, f"--rates={rates}", "-o", "s.toml")
    assert "outside [0, 1)" in refused(cli, *args)

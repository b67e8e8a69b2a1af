"""Fuzz the readers of specification files: subspace, objective, solver and meta data.

    python tools/fuzz_specs.py --seconds 600 [--seed 0]

Each round takes a good file of one kind and form, damages it and reads it. Anything but a result or
an IrpruneError is reported with its seed and ends the run with exit status 1; so does a round that
takes over five seconds. What is read is used: written and read again where that is possible.
"""

from __future__ import annotations

import argparse
import pickle
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzzing import damage, fuzz, shuffle

from irprune.errors import IrpruneError
from irprune.frontends.caffe.solver import read_solver
from irprune.frontends.specs.document import Text
from irprune.frontends.specs.meta import read_meta
from irprune.frontends.specs.objective import parse_objective, read_objective
from irprune.frontends.specs.subspace import read_subspace

ROWS = [[0.0, 0.3, 0.5], [0.5, 0.0, 0.7], [0.25, 0.125, 0]]
PIECES = [
    *(b"[", b"]", b"{", b"}", b"(", b")", b"=", b":", b",", b'"', b"'", b'"""', b"#", b"\n", b"."),
    *(b"configs", b"[[configs]]", b"[a.b]", b"min", b"constraint", b"%", b"<=", b"1e999", b"-1"),
    *(
        b"9" * 5000,
        b"nan",
        b"inf",
        b"true",
        b"null",
        b"\\u0000",
        b"\\x",
        b"\xff\xfe",
        b"\0",
        b"f(x)",
    ),
    *(
        b"import os",
        b"0x_1",
        b"1_0",
        b"1979-05-27",
        b"\xef\xbb\xbf",
        b"\r",
        b"\xe2\x80\xa8",
        b"{" * 300,
    ),
]
OPCODES = [
    *(
        b"\x80\x05",
        b"(",
        b"]",
        b"a",
        b"e",
        b"l",
        b"t",
        b"\x85",
        b"\x86",
        b"\x94",
        b"q\x00",
        b"h\x00",
    ),
    *(
        b"R",
        b"b",
        b"cos\nsystem\n",
        b"\x93",
        b"\x8c\x02os",
        b"I1\n",
        b"L9\n",
        b"G",
        b"B\xff\xff\xff\x7f",
    ),
    *(
        b"\x8e" + b"\xff" * 8,
        b"j\xff\xff\xff\xff",
        b"\x8a\xff",
        b"2",
        b"0",
        b"1",
        b".",
        b"]" * 5000,
    ),
]
OBJECTIVE = b"""# as in the figure
min ModelSize
constraint Accuracy > 0.8
constraint Latency <= 12ms
constraint Memory < 60%
"""
META = b"""machines = 4
[dataset]
name = "cub200"
directory = "data/cub200"
[pretrain]
learning-rate = 0.2
iterations = 10000
batch-size = 32
[finetune]
learning-rate = 0.001
iterations = 30000
batch-size = 32
solver = "Nesterov"
"""
META_JSON = b"""{"dataset": {"name": "a", "directory": "b"}, "machines": 2,
 "pretrain": {"learning-rate": 0.2, "iterations": 10, "batch-size": 3},
 "finetune": {"learning-rate": 1, "iterations": 30, "batch-size": 2, "momentum": 0.9}}"""
SOLVER = b"""net: "lenet.prototxt"
test_iter: 100 test_interval: 500
base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005
lr_policy: "multistep" gamma: 0.1 stepvalue: [100, 200]
max_iter: 10000 snapshot: 5000 snapshot_prefix: "a" solver_mode: CPU type: "Adam"
"""
TOML = b"""rates = "removed"
modules = ["a", "b", "c"]
origin = '''by hand'''
configs = [
  [0.0, 0.3, 0.5], # one
  [0.5, 0.0, 0.7],
]
"""

Reader = Callable[[Path], None]


def use_subspace(path: Path) -> None:
    subspace = read_subspace(path)
    for suffix in (".toml", ".json"):
        copy = path.with_name(f"copy{suffix}")
        subspace.save(copy)
        again = read_subspace(copy)
        assert again.removed == subspace.removed and again.modules == subspace.modules


def use_objective(path: Path) -> None:
    objective = read_objective(path)
    again = parse_objective(Text(str(objective)))
    assert (again.direction, again.metric) == (objective.direction, objective.metric)
    metrics = dict.fromkeys(("ModelSize", "Accuracy", "Latency", "MACs", "Memory"), 0.5)
    objective.key(metrics, metrics)


def use_solver(path: Path) -> None:
    solver = read_solver(path)
    for iteration in (0, 1, 10**6):
        solver.rate(iteration)


def use_meta(path: Path) -> None:
    repr(read_meta(path))


def samples() -> list[tuple[str, Reader, bytes]]:
    """Good files: the suffix, who reads it, and the content."""
    arrays = [np.array(ROWS), np.array(ROWS, "f4"), np.asfortranarray(ROWS), np.array(ROWS, ">f8")]
    pickles = [ROWS, tuple(map(tuple, ROWS)), [np.float32(0.5), 0.25], *arrays]
    found: list[tuple[str, Reader, bytes]] = [
        (".txt", use_subspace, b"configs = [[0.3, 0], [0.5, 0]]\n"),
        (".txt", use_subspace, b"# a\n'''text'''\n[0.3, 0, +0.5]\n(0.5, 0, 0.1),\n"),
        (".toml", use_subspace, TOML),
        (".json", use_subspace, b'{"configs": [[0.1, 0], [0.5, 0.2]], "origin": "\\u00e9"}'),
        (".json", use_subspace, b"[[0.1, 0], [0.5, 0.2]]"),
        (".txt", use_objective, OBJECTIVE),
        (".toml", use_objective, b'max = "Accuracy"\nconstraints = ["MACs < 50%", "Memory < 2MB"]'),
        (".json", use_objective, b'{"min": "Latency", "constraints": ["Accuracy >= 80%"]}'),
        (".toml", use_meta, META),
        (".json", use_meta, META_JSON),
        (".prototxt", use_solver, SOLVER),
    ]
    for value in pickles:
        found += [(".pkl", use_subspace, pickle.dumps(value, k)) for k in range(6)]
    return found


def one_round(seed: str, files: list[tuple[str, Reader, bytes]], folder: Path) -> str:
    """Read one damaged file; what came of it in words."""
    chance = random.Random(seed)
    suffix = chance.choice([".txt", ".toml", ".json", ".prototxt", ".pkl"])
    suffix, reader, data = chance.choice([file for file in files if file[0] == suffix])
    _, _, other = chance.choice(files)
    if suffix != ".pkl" and chance.random() < 0.3:
        data = shuffle(data, chance)
    else:
        data = damage(data, other, OPCODES if suffix == ".pkl" else PIECES, chance)
    path = folder / f"file{suffix}"
    path.write_bytes(data)
    what = f"{reader.__name__.removeprefix('use_')}{suffix}"
    try:
        reader(path)
    except IrpruneError as error:
        str(error).encode()
        return f"{what} refused"
    return f"{what} read"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", default="0")
    given = options.parse_args()
    files = samples()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return fuzz(lambda seed: one_round(seed, files, folder), given.seconds, given.seed)


if __name__ == "__main__":
    sys.exit(main())

"""Solvers as recipes: the same rates and updates; what no recipe can say is pointed at."""

from __future__ import annotations

import os
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from irprune.backends.torch.training.optim import make_optimizer
from irprune.errors import IrpruneError
from irprune.explore.iterate import read_config
from irprune.frontends.caffe import read_solver, recipe_of
from irprune.frontends.caffe.solver import Solver, solver_of
from irprune.frontends.caffe.text import parse
from irprune.recipe import Optimizer, Recipe

BASE = "base_lr: 0.5 max_iter: 100 "
FIXED = BASE + "lr_policy: 'fixed' "
SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
POLICIES = [
    "'fixed'",
    "'step' gamma: 0.1 stepsize: 7",
    "'exp' gamma: 0.9",
    "'exp' gamma: 1e300",
    "'inv' gamma: 0.1 power: 2",
    "'multistep' gamma: 0.1 stepvalue: 10 stepvalue: 30",
    "'poly' power: 0.5",
    "'sigmoid' gamma: 0.1 stepsize: 50",
    "'sigmoid' gamma: 1e9 stepsize: 50",
]


def solver(text: str) -> Solver:
    return solver_of(parse(text, "solver.prototxt"))


def recipe(text: str, epochs: int = 4, batch: int = 10) -> Recipe:
    return recipe_of(solver(text), Recipe(epochs, batch))


@pytest.mark.parametrize("policy", POLICIES)
@given(step=st.integers(0, 99), each=st.integers(1, 60))
def test_the_rates_are_caffes(policy: str, step: int, each: int) -> None:
    read = solver(f"{BASE} lr_policy: {policy}")
    made = recipe_of(read, Recipe(epochs=1))
    rate = made.optimizer.lr * made.schedule.share(step, each, 100 / each)
    assert rate == pytest.approx(read.rate(step), rel=1e-9, abs=1e-12)


def test_every_field_arrives() -> None:
    made = recipe(
        FIXED + "type: 'Nesterov' momentum: 0.9 weight_decay: 0.0005 random_seed: 7 "
        "clip_gradients: 10 iter_size: 2 test_iter: 5 test_interval: 5 snapshot: 50 display: 20"
    )
    assert (made.epochs, made.batch, made.steps, made.seed, made.clip) == (4, 20, 100, 7, 5)
    assert made.optimizer == Optimizer("sgd", 0.5, 0.0005, momentum=0.9, nesterov=True)
    bare = recipe_of(solver(FIXED), Recipe(4, 10, seed=3, label_smoothing=0.1))
    assert (bare.seed, bare.clip, bare.label_smoothing) == (3, None, 0.1)


def sgd(g: float, k: int, was: dict[str, float]) -> float:
    was["v"] = 0.9 * was.get("v", 0) + 0.5 * g
    return was["v"]


def nesterov(g: float, k: int, was: dict[str, float]) -> float:
    before, was["v"] = was.get("v", 0), 0.9 * was.get("v", 0) + 0.5 * g
    return 1.9 * was["v"] - 0.9 * before


def adagrad(g: float, k: int, was: dict[str, float]) -> float:
    was["h"] = was.get("h", 0) + g * g
    return 0.5 * g / (sqrt(was["h"]) + 0.01)


def rmsprop(g: float, k: int, was: dict[str, float]) -> float:
    was["h"] = 0.8 * was.get("h", 0) + 0.2 * g * g
    return 0.5 * g / (sqrt(was["h"]) + 0.01)


def adadelta(g: float, k: int, was: dict[str, float]) -> float:
    was["h"] = 0.9 * was.get("h", 0) + 0.1 * g * g
    step = g * sqrt((was.get("u", 0) + 0.01) / (was["h"] + 0.01))
    was["u"] = 0.9 * was.get("u", 0) + 0.1 * step * step
    return 0.5 * step


def adam(g: float, k: int, was: dict[str, float]) -> float:
    was["m"] = 0.9 * was.get("m", 0) + 0.1 * g
    was["v"] = 0.99 * was.get("v", 0) + 0.01 * g * g
    return 0.5 * sqrt(1 - 0.99**k) / (1 - 0.9**k) * was["m"] / sqrt(was["v"])


@pytest.mark.parametrize(
    ("text", "update"),
    [
        ("momentum: 0.9", sgd),
        ("type: 'Nesterov' momentum: 0.9", nesterov),
        ("type: 'AdaGrad' delta: 0.01", adagrad),
        ("type: 'RMSProp' rms_decay: 0.8 delta: 0.01", rmsprop),
        ("type: 'AdaDelta' momentum: 0.9 delta: 0.01", adadelta),
        ("type: 'Adam' momentum: 0.9 momentum2: 0.99 delta: 0", adam),
    ],
)
def test_the_updates_are_caffes(text: str, update: object) -> None:
    """By the formulas of Caffe's solvers, with L2 decay added to the gradient."""
    assert callable(update)
    made = recipe(FIXED + "weight_decay: 0.1 " + text)
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = make_optimizer(made.optimizer, [weight])
    wanted, was = 2.0, dict[str, float]()
    for k, gradient in enumerate(np.random.default_rng(0).normal(size=6), 1):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        wanted -= update(gradient + 0.1 * wanted, k, was)
        assert weight.item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "spot", "reason"),
    [
        ("weight_decay: 1 regularization_type: 'L1'", "'L1'", "only L2 decay"),
        ("clip_gradients: 0", "0", "`clip_gradients`"),
        ("type: 'AdaGrad' momentum: 0.25", "0.25", "AdaGrad has none"),
        ("type: 'RMSProp' momentum: 0.25", "0.25", "RMSProp has none"),
        ("type: 'RMSProp' rms_decay: 1", "1", "`rms_decay`"),
        ("type: 'Adam' momentum: 1.5", "1.5", "`momentum`"),
        ("type: 'Adam' momentum2: 1.5", "1.5", "`momentum2`"),
        ("type: 'AdaDelta' momentum: 1.5", "1.5", "`momentum`"),
        ("warmup_iter: 55", "55", "unknown field `warmup_iter`"),
    ],
)
def test_what_no_recipe_says_is_pointed_at(text: str, spot: str, reason: str) -> None:
    with pytest.raises(IrpruneError) as caught:
        recipe(f"{FIXED}\n{text}")
    message = str(caught.value)
    column = text.rindex(spot) + 1
    assert message.startswith(f"solver.prototxt:2:{column}:")
    assert reason in message
    assert message.endswith(f"  {text}\n  {' ' * (column - 1)}^")


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(IrpruneError, match="`max_iter`: there is nothing"):
        recipe("base_lr: 1 lr_policy: 'fixed' max_iter: 0")


@pytest.mark.shared
def test_the_solvers_of_caffes_examples_are_recipes() -> None:
    folder = SHARED / "caffe" / "nets" / "bvlc_caffe"
    assert folder.is_dir(), f"no shared inputs at {folder}: set IRPRUNE_SHARED"
    found = sorted(folder.rglob("*solver*.prototxt"))
    made = [recipe_of(read_solver(path), Recipe(1)) for path in found]
    assert len(made) > 20
    assert {one.optimizer.name for one in made} >= {"sgd", "adam", "rmsprop", "adadelta"}
    assert {one.schedule.policy for one in made} >= {"fixed", "step", "inv", "multistep", "poly"}


CONFIG = '[model]\nsource = "a"\n[data]\nname = "mnist"\n[rewind]\nepoch = 2\n[train]\n'


def test_iterate_reads_a_solver(tmp_path: Path) -> None:
    (tmp_path / "s.prototxt").write_text(BASE + "lr_policy: 'poly' power: 1 momentum: 0.9")
    path = tmp_path / "c.toml"
    path.write_text(CONFIG + 'solver = "s.prototxt"\nepochs = 4\nbatch = 60\nseed = 2\n')
    config = read_config(path)
    train = config.train
    assert (train.epochs, train.batch, train.seed, train.steps) == (4, 60, 2, 100)
    assert (train.optimizer.momentum, train.schedule.policy) == (0.9, "poly")
    (tmp_path / "s.prototxt").write_text(FIXED)
    assert read_config(path).identity() != config.identity()


def test_what_a_solver_leaves_out_may_be_said(tmp_path: Path) -> None:
    (tmp_path / "s.prototxt").write_text(BASE + "lr_policy: 'exp' gamma: 0.5")
    more = 'clip = 1.5\nseed = 3\nschedule = {warmup = 8, unit = "steps"}\n'
    (tmp_path / "c.toml").write_text(f'{CONFIG}solver = "s.prototxt"\nepochs = 4\n{more}')
    train = read_config(tmp_path / "c.toml").train
    assert (train.clip, train.seed) == (1.5, 3)
    assert [train.schedule.share(step, 25, 4) for step in (0, 2, 8, 9)] == [0, 0.25, 2**-8, 2**-9]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("seed = 1", "train.seed: the solver says it too"),
        ("clip = 1.0", "train.clip: the solver says it too"),
        ("optimizer = {lr = 1}", "train.optimizer: the solver says it too"),
        ('schedule = {policy = "fixed"}', "train.schedule: the solver says it too"),
        ('schedule = {unit = "steps"}', "train.schedule: the solver says it too"),
        ("schedule = {warmup = 5, at = [3]}", "train.schedule: the solver says it too"),
        ("schedule = {warmup = 5}", 'train.schedule: warmup = 5 counts epochs, .*unit = "steps"'),
        ("solver = 3", "train.solver: is no path"),
        ("epoch = 3", "did you mean epochs"),
    ],
)
def test_what_the_solver_says_is_not_said_twice(tmp_path: Path, extra: str, message: str) -> None:
    (tmp_path / "s.prototxt").write_text(FIXED + "random_seed: 7 clip_gradients: 2")
    line = "" if extra.startswith("solver") else 'solver = "s.prototxt"\n'
    (tmp_path / "c.toml").write_text(f"{CONFIG}{line}epochs = 4\n{extra}\n")
    with pytest.raises(IrpruneError, match=message):
        read_config(tmp_path / "c.toml")

"""Iterative pruning: what its rounds keep, count and record, and that a kill loses nothing."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import irprune
from irprune import IrpruneError, Model, Plan, api
from irprune.channels import analyse
from irprune.explore.iterate import iterate, measure, read_config
from irprune.explore.iterate.config import (
    Config,
    DataSet,
    Network,
    Objective,
    Pruning,
    Rewinding,
)
from irprune.recipe import Distillation, Machine, Optimizer, Recipe
from irprune.shapes import infer

EXAMPLES = Path(__file__).parents[3] / "examples" / "iterate"
CONFIG = Config(
    model=Network("unused.onnx", "fresh"),
    data=DataSet("npz", "unused"),
    train=Recipe(epochs=3, batch=20, optimizer=Optimizer("nadam", lr=0.01)),
    rewind=Rewinding(2),
    prune=Pruning("iap", dense=(0.25,), conv=(0.25,), samples=30),
    objective=Objective(rounds=2),
    machine=Machine(accelerator="cpu"),
    latency=False,
)


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 12),
        nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return irprune.from_torch(net().eval(), (torch.zeros(2, 1, 6, 6),))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 160)
    x = random.normal(size=(160, 1, 6, 6)) + y[:, None, None, None] / 2
    x = x.astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    return path


def run(folder: Path, model: Model, data: Path, config: Config = CONFIG, **more: Any) -> Any:
    return iterate(config, folder, model=model, data=data, **more)


def test_rounds_shrink_the_files_and_rewind_the_weights(
    tmp_path: Path, model: Model, data: Path
) -> None:
    records = run(tmp_path, model, data)
    assert [r["round"] for r in records] == [0, 1, 2]
    widths = [list(r["widths"].values()) for r in records]
    assert widths == [[8, 12, 3], [6, 9, 3], [4, 7, 3]]
    assert json.loads((tmp_path / "records.json").read_text()) == records
    last = tmp_path / "round-002"
    session = onnxruntime.InferenceSession(last / "model.onnx")
    found = np.load(data)
    name = session.get_inputs()[0].name
    logits = session.run(None, {name: found["x_test"]})[0]
    accuracy = (logits.argmax(1) == found["y_test"]).mean()
    assert accuracy == pytest.approx(records[2]["accuracy"])
    # The plan fits the trained original, and the rewound start is epoch 2 sliced by it.
    plan = Plan.load(last / "plan.json")
    early = api.load(tmp_path / "round-000" / "epoch-2.onnx")
    small = api.apply(plan, early, verify=True).model
    sizes = {n: tuple(v.shape) for n, v in small.ir.graph.initializers.items() if v.shape}
    after = api.load(last / "model.onnx").ir.graph.initializers
    assert sizes == {n: tuple(v.shape) for n, v in after.items() if v.shape}
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_the_report_and_the_front(tmp_path: Path, model: Model, data: Path) -> None:
    records = run(tmp_path, model, data)
    text = (tmp_path / "report.md").read_text()
    assert len(re.findall(r"^\| \d", text, re.MULTILINE)) == 3
    best = measure.pareto(records, "macs")
    assert best and max(records, key=lambda r: r["accuracy"])["accuracy"] in [
        records[n]["accuracy"] for n in best
    ]
    rows = [
        {"round": n, "accuracy": a, "macs": m} for n, (a, m) in enumerate([(3, 9), (2, 9), (2, 5)])
    ]
    assert measure.pareto(rows, "macs") == [0, 2]


def test_learning_rate_rewinding_keeps_the_weights(
    tmp_path: Path, model: Model, data: Path
) -> None:
    """With a learning rate of nearly nothing, round 1 is the trained original, sliced."""
    train = replace(CONFIG.train, optimizer=Optimizer("sgd", lr=1e-12))
    config = replace(CONFIG, train=train, rewind=Rewinding(2, "learning-rate"))
    records = run(tmp_path, model, data, config)
    assert records[2]["stability"] == pytest.approx(0, abs=1e-6)
    weights = replace(config, rewind=Rewinding(2))
    assert run(tmp_path / "w", model, data, weights)[2]["stability"] == pytest.approx(0, abs=1e-6)


def test_the_target_does_not_end_training_before_the_rewound_epoch(
    tmp_path: Path, model: Model, data: Path
) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, target=0.0), objective=Objective(rounds=1))
    assert len(run(tmp_path, model, data, config)) == 2
    assert (tmp_path / "round-000" / "epoch-2.onnx").is_file()


def test_rounds_learn_from_the_original(tmp_path: Path, model: Model, data: Path) -> None:
    """Round 0, which has no teacher yet, trains as without distillation; the next ones differ."""
    plain = replace(CONFIG, objective=Objective(rounds=1))
    taught = replace(plain, train=replace(plain.train, distillation=Distillation(0.5)))
    one = run(tmp_path / "plain", model, data, plain)
    two = run(tmp_path / "taught", model, data, taught)
    assert one[0] == two[0] and one[1]["loss"] != two[1]["loss"]


def test_a_trained_network_is_taken_as_it_is(tmp_path: Path, model: Model, data: Path) -> None:
    config = replace(
        CONFIG,
        model=Network("unused", "given"),
        pretrained=True,
        rewind=Rewinding(2, "learning-rate"),
        objective=Objective(rounds=1),
    )
    run(tmp_path, model, data, config)
    held = api.load(tmp_path / "round-000" / "model.onnx").ir.graph.initializers
    for name, value in model.ir.graph.initializers.items():
        if name in held and value.const_value is not None:
            assert np.array_equal(value.const_value.numpy(), held[name].const_value.numpy())  # type: ignore[union-attr]


def test_the_adaptive_threshold_waits_grows_and_prunes(
    tmp_path: Path, model: Model, data: Path
) -> None:
    how = Pruning("aiap", samples=30, step=0.1, hold=3)
    config = replace(CONFIG, prune=how, objective=Objective(rounds=9))
    records = run(tmp_path, model, data, config)
    thresholds = [r["threshold"] for r in records]
    assert thresholds[:4] == [0, 0, 0, 0] and thresholds[4] == pytest.approx(0.1)
    assert records[-1]["params"] < records[0]["params"]
    assert {r["threshold_kind"] for r in records} == {"conv"}
    for before, now, after in zip(records[2:], records[3:], records[4:], strict=False):
        lost = before["threshold_params"] - now["threshold_params"]
        grows = lost / records[0]["threshold_params"] < 0.01
        assert after["threshold"] - now["threshold"] == pytest.approx(0.1 if grows else 0)


def test_objectives_end_the_run(tmp_path: Path, model: Model, data: Path) -> None:
    def rounds(name: str, **objective: Any) -> int:
        wanted = Objective(rounds=9, **objective)
        config = replace(CONFIG, objective=wanted)
        return len(run(tmp_path / name, model, data, config)) - 1

    assert rounds("size", compression=1.6, counting="physical") == 1
    assert rounds("paper", compression=1.6, counting="paper") == 2
    assert rounds("loss", accuracy_loss=-1.0) == 0


def test_a_run_with_nothing_left_stops(tmp_path: Path, model: Model, data: Path) -> None:
    how = Pruning("ilp", conv=(0.99,), dense=(0.99,))
    config = replace(CONFIG, prune=how, objective=Objective(rounds=9))
    records = run(tmp_path, model, data, config)
    assert list(records[-1]["widths"].values()) == [1, 1, 3] and len(records) == 2


class Killed(BaseException):
    """Stands for SIGKILL."""


def _writes(monkeypatch: pytest.MonkeyPatch, limit: int) -> Iterator[None]:
    """Die at the so-many-th file that is moved into place, before it is."""
    import os

    real, left = os.replace, [limit]

    def dying(*args: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        yield


@pytest.mark.parametrize("what", ["weights", "learning-rate"])
def test_a_kill_before_any_file_loses_nothing(
    tmp_path: Path, model: Model, data: Path, monkeypatch: pytest.MonkeyPatch, what: Any
) -> None:
    config = replace(CONFIG, rewind=Rewinding(2, what), prune=replace(CONFIG.prune, verify=False))
    wanted = run(tmp_path / "whole", model, data, config)
    folder, deaths = tmp_path / "cut", 0
    for writes in (1, 2, 3, 2, 1, 4, 3, 2, 5, 1, 2, 3, 100):
        for _ in _writes(monkeypatch, writes):
            try:
                found = run(folder, model, data, config)
            except Killed:
                deaths += 1
                found = None
        if found is not None:
            break
    assert deaths > 5
    assert found == wanted
    assert (folder / "records.json").read_bytes() == (tmp_path / "whole/records.json").read_bytes()


def test_another_configuration_is_refused(tmp_path: Path, model: Model, data: Path) -> None:
    run(tmp_path, model, data)
    with pytest.raises(IrpruneError, match="another configuration: prune differ"):
        run(tmp_path, model, data, replace(CONFIG, prune=Pruning("ilp")))
    more = replace(CONFIG, objective=Objective(rounds=3))
    assert len(run(tmp_path, model, data, more)) == 4


def test_two_processes_do_not_share_a_folder(tmp_path: Path, model: Model, data: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(IrpruneError, match="another process"):
            run(tmp_path, model, data)


def test_methods_share_the_original(tmp_path: Path, model: Model, data: Path) -> None:
    one = run(tmp_path / "iap", model, data)
    ilp = replace(CONFIG, prune=replace(CONFIG.prune, method="ilp"))
    two = run(tmp_path / "ilp", model, data, ilp, base=tmp_path / "iap")
    assert two[0] == one[0]
    assert two == run(tmp_path / "alone", model, data, ilp)
    other = replace(ilp, train=replace(ilp.train, seed=1))
    with pytest.raises(IrpruneError, match="made by another configuration"):
        run(tmp_path / "other", model, data, other, base=tmp_path / "iap")


def test_a_damaged_record_is_named(tmp_path: Path, model: Model, data: Path) -> None:
    run(tmp_path, model, data)
    (tmp_path / "round-001" / "record.json").write_text("{")
    with pytest.raises(IrpruneError, match="record.json"):
        run(tmp_path, model, data)
    shutil.rmtree(tmp_path / "round-001")


def test_data_must_fit_the_model(tmp_path: Path, model: Model, data: Path) -> None:
    bad = dict(np.load(data))
    bad["y_test"] = bad["y_test"] + 1
    np.savez(tmp_path / "bad.npz", **bad)
    with pytest.raises(IrpruneError, match="labels go up to 3, the model tells 3"):
        run(tmp_path / "run", model, tmp_path / "bad.npz")


def test_the_paper_counts_a_filter_s_own_weights() -> None:
    """LeNet-300-100 with 240 and 80 units: 784·240+240 + 300·80+80 + 100·10+10."""
    layers = [nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)]
    given = irprune.from_torch(nn.Sequential(*layers).eval(), (torch.zeros(2, 784),))
    base = api.run("normalize", given, verify=False).model
    infer(base.ir)
    channels = analyse(base.ir.graph)
    keep = np.ones(channels.count, np.bool_)
    for value, size in (("0.weight", 60), ("2.weight", 20)):
        axis = next(s for s in channels.producers if s.value.name == value)
        keep[axis.classes[:size]] = False
    plan = channels.plan(keep)
    assert measure.own_parameters(channels, Plan.empty()) == 266_610
    assert measure.own_parameters(channels, plan) == 785 * 240 + 301 * 80 + 1010
    assert measure.threshold_kind(channels) == "dense"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_the_examples_are_the_paper_s(path: Path) -> None:
    config = read_config(path)
    epochs = {"lenet300": (6, 5), "lenet5": (24, 22), "resnet50": (90, 80)}
    wanted = epochs.get(path.stem.split("-")[0])
    if wanted is not None:
        assert (config.train.epochs, config.rewind.epoch) == wanted
    assert config.prune.method in path.stem or path.stem.startswith("resnet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model: is missing"),
        (
            '[model]\nsource="a"\n[data]\nname="mnist"\n[train]\nepochs=2\n[rewind]\nepoch=2',
            "epoch",
        ),
        ('[model]\nsource="a"\n[data]\nname="mnist"\n[train]\nepoch=2', "did you mean epochs"),
    ],
)
def test_bad_configurations_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(IrpruneError, match=message):
        read_config(tmp_path / "c.toml")

"""Iterative pruning: what its rounds keep, count and record, and that a kill loses nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from iterate_runs import CONFIG, net, run
from torch import nn

import irprune
from irprune import IrpruneError, Model, Plan, api
from irprune.backends.torch.training.trainer import TorchTrainer
from irprune.channels import analyse
from irprune.explore.iterate import measure, read_config
from irprune.explore.iterate.config import (
    Network,
    Objective,
    Pruning,
    Rewinding,
)
from irprune.recipe import Distillation, Optimizer
from irprune.shapes import infer
from irprune.training import Fitted, Score

EXAMPLES = Path(__file__).parents[3] / "examples" / "iterate"


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
    empty = replace(taught, prune=Pruning("ilp", conv=(0.0, 0.25), dense=(0.0,)))
    three = run(tmp_path / "empty", model, data, empty)
    assert three[1]["removed"] == 0 and three[1]["loss"] != three[0]["loss"]


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


def test_a_loss_that_is_just_allowed_goes_on(
    tmp_path: Path, model: Model, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.98 - 0.97 is more than 0.01 in floats."""
    accuracies = iter([0.98, 0.97, 0.96, 0.95])
    monkeypatch.setattr(
        TorchTrainer, "fit", lambda *_, **__: Fitted(Score(next(accuracies), 1.0), 3)
    )
    config = replace(
        CONFIG,
        rewind=Rewinding(2, "learning-rate"),
        objective=Objective(rounds=3, accuracy_loss=0.01),
    )
    records = run(tmp_path, model, data, config)
    assert [record["accuracy"] for record in records] == [0.98, 0.97, 0.96]


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


def test_data_must_fit_the_model(tmp_path: Path, model: Model, data: Path) -> None:
    bad = dict(np.load(data))
    bad["y_test"] = bad["y_test"] + 1
    np.savez(tmp_path / "bad.npz", **bad)
    with pytest.raises(IrpruneError, match=r"bad\.npz: labels go up to 3, the model tells 3"):
        run(tmp_path / "run", model, tmp_path / "bad.npz")


def test_an_empty_round_keeps_weights_that_lie_beside_the_file(
    tmp_path: Path, model: Model, data: Path
) -> None:
    aside = model.clone()
    aside.provenance = replace(aside.provenance, external=True)
    config = replace(CONFIG, prune=Pruning("ilp", conv=(0.0, 0.0, 0.25), dense=(0.0,)))
    records = run(tmp_path, aside, data, config)
    assert [record["removed"] for record in records] == [0, 0, 0]
    before, after = (api.load(tmp_path / f"round-00{n}" / "model.onnx") for n in (1, 2))
    assert after.provenance.external
    assert measure.stability(before, after, Plan.empty()) == 0


def test_a_run_that_fails_has_a_report_of_what_is_done(
    tmp_path: Path, model: Model, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TorchTrainer.fit

    def failing(self: TorchTrainer, model: Model, folder: Path, **more: Any) -> Fitted:
        if folder.name == "round-002":
            raise IrpruneError("no more")
        return real(self, model, folder, **more)

    monkeypatch.setattr(TorchTrainer, "fit", failing)
    with pytest.raises(IrpruneError, match="no more"):
        run(tmp_path, model, data)
    assert [row["round"] for row in json.loads((tmp_path / "records.json").read_text())] == [0, 1]
    assert "| 1 |" in (tmp_path / "report.md").read_text()


def test_a_latency_that_cannot_be_measured_is_told(
    tmp_path: Path, model: Model, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"median_s": None, "error": "the process died"}
    monkeypatch.setattr(api, "bench", lambda models, *, timing: {"models": [row]})
    told: list[str] = []
    config = replace(CONFIG, latency=True, objective=Objective(rounds=1))
    records = run(tmp_path, model, data, config, log=told.append)
    assert [record["latency_s"] for record in records] == [None, None]
    assert "iterate: round 1: no latency: the process died" in told


def test_a_layer_that_died_is_proved_with_other_weights(tmp_path: Path, data: Path) -> None:
    module = net().eval()
    dead = module[4]
    assert isinstance(dead, nn.Linear)
    nn.init.constant_(dead.bias, -100.0)
    given = irprune.from_torch(module, (torch.zeros(2, 1, 6, 6),))
    config = replace(
        CONFIG,
        model=Network("unused.onnx", "given"),
        pretrained=True,
        prune=Pruning("ilp", conv=(0.25,), dense=(0.25,)),
        rewind=Rewinding(2, "learning-rate"),
        objective=Objective(rounds=1),
    )
    told: list[str] = []
    records = run(tmp_path, given, data, config, log=told.append)
    assert records[1]["removed"] > 0
    assert any("proved with weights drawn anew" in line for line in told)
    unproved = replace(config, prune=replace(config.prune, verify=False))
    assert run(tmp_path, given, data, unproved) == records


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
        ("", "data: is missing"),
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

"""The study of VGG-16: its configurations run, its jobs resume, and its page tells what it did."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import irprune
from irprune import IrpruneError
from irprune.backends.torch.training.data import Draw, Split

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))
import tpu_study
import tpu_vgg
from tpu_study import OutOfTime, Record, Runs, Study

CURVES = ["l1-reload", "original", "scaling-reload", "scaling-scratch"]


def row(curve: str, ratio: float, seed: int, accuracy: float = 0.5) -> Record:
    """A record of a job."""
    keys = ("params", "macs", "memory_bytes", "model_memory_bytes", "step_s", "model_step_s")
    job = {"curve": curve, "ratio": ratio, "seed": seed, "accuracy": accuracy}
    return job | {"hardware": "cpu", "threads": 1} | dict.fromkeys(keys, 1)


def tiny(name: str) -> Study:
    study = tpu_vgg.shipped(name)
    return replace(
        study,
        network=replace(study.network, width=1 / 32),
        data=replace(study.data, workers=0),
        train=replace(study.train, epochs=1, batch=2),
        sweep=replace(study.sweep, ratios=(0.5,), images=4),
        machine=replace(study.machine, accelerator="cpu"),
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images to train on, and two to test."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            pixels = random.integers(0, 256, (240, 260, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / name / "a.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, random = tmp_path_factory.mktemp("pictures") / "p.npz", np.random.default_rng(0)
    x = random.integers(0, 256, (8, 3, 32, 32), np.uint8)
    y = np.arange(8) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process, one step; memory may not grow there, for others have grown it."""
    monkeypatch.setattr(tpu_study, "apart", tpu_study.measured)
    monkeypatch.setattr(tpu_study, "STEPS", 1)


def test_the_papers_trainings_are_shipped() -> None:
    for name in tpu_vgg.STUDIES:
        train = tpu_vgg.shipped(name).train
        assert (train.batch, train.epochs) == (128, 100)
        assert (train.optimizer.name, train.optimizer.lr, train.optimizer.momentum) == (
            "sgd",
            0.01,
            0.9,
        )
        assert train.schedule.policy == "constant"
        study = tpu_vgg.shipped(name)
        assert tpu_vgg.changes(study, tpu_vgg.SEEDS, study) == []


@pytest.mark.parametrize(("name", "millions"), [("cifar10", 15.25), ("imagenet", 138.36)])
def test_the_network_is_vgg16(name: str, millions: float) -> None:
    with torch.device("meta"):
        module = tpu_study.vgg16(tpu_vgg.shipped(name).network)
    count = sum(p.numel() for p in module.parameters()) / 1e6
    assert count == pytest.approx(millions, abs=0.01)


@pytest.mark.usefixtures("quick")
def test_imagenet_runs_on_two_images(tmp_path: Path, photos: Path) -> None:
    study = tiny("imagenet")
    runs = Runs(study, tmp_path, photos)
    runs.run([0])
    rows = {row["curve"]: row for row in runs.records()}
    assert sorted(rows) == CURVES
    whole = rows.pop("original")
    for row in rows.values():
        assert 0 < row["params"] < whole["params"]
        assert 0 < row["model_step_s"] <= whole["model_step_s"]
        assert row["step_s"] > 0
    text = tpu_vgg.document("imagenet", study, runs.records(), [], [0])
    assert "epochs 1 instead of 100" in text
    assert "training images 4 (spread over all) instead of all" in text
    assert "no training has a penalty on scaling factors" in text
    assert "| 50% |" in text and "Unfinished" not in text


@pytest.mark.parametrize(("images", "tested"), [(3, 6), (6, 3), (7, None), (None, 100)])
def test_few_images_of_folders_are_of_all_classes(
    tmp_path: Path, images: int | None, tested: int | None
) -> None:
    """Their files are sorted by class."""
    for split, name, number in itertools.product(("train", "val"), "abc", range(4)):
        path = tmp_path / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    study = tiny("imagenet")
    study = replace(
        study,
        data=replace(study.data, size=8),
        sweep=replace(study.sweep, images=images, tested=tested),
    )
    data = Runs(study, tmp_path / "runs", tmp_path).examples()
    splits: dict[Split, int] = {"train": images or 12, "test": min(tested or 12, 12)}
    for split, size in splits.items():
        assert data.size(split) == size
        draws = [Draw(np.arange(size), 0)]
        [(_, labels)] = data.batches(split, draws, torch.device("cpu"))
        assert np.ptp(np.bincount(labels, minlength=3)) <= 1


def test_few_images_of_arrays_are_the_first(tmp_path: Path) -> None:
    x, y = np.zeros((8, 3, 32, 32), np.uint8), np.arange(8)
    np.savez(tmp_path / "p.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = Runs(tiny("cifar10"), tmp_path / "runs", tmp_path / "p.npz").examples()
    [(_, labels)] = data.batches("train", [Draw(np.array([3, 1]))], torch.device("cpu"))
    assert labels.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", "0"), ("images", "0"), ("tested", "0"), ("width", "0"), ("ratios", "1")],
)
def test_options_out_of_range_are_refused(option: str, value: str) -> None:
    options = tpu_vgg.parser().parse_args(["--data", "p.npz", f"--{option}", value])
    with pytest.raises(IrpruneError, match=f"{option} = {value}.* must lie in"):
        tpu_vgg.shortened(tpu_vgg.shipped("cifar10"), options)


OPTIONS = [
    "--seeds 3 4",
    "--epochs 2 --images 10 --tested 20 --width 0.25 --ratios 0 0.25 0.333333 --seeds 0",
    "--scope global --device tpu-v4 --accelerator cpu --precision bf16-mixed",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_command_on_the_page_asks_for_what_the_page_shows(options: str) -> None:
    asked = tpu_vgg.parser().parse_args(["--data", "p.npz", *options.split()])
    study = tpu_vgg.shortened(tpu_vgg.shipped("cifar10"), asked)
    page = tpu_vgg.document("cifar10", study, [row("original", 0, 3)], [], asked.seeds)
    told = commanded(page)
    assert told.data == Path("DATA")
    assert tpu_vgg.shortened(tpu_vgg.shipped(told.study), told) == study
    assert set(told.seeds) == {*asked.seeds, 3}


def commanded(page: str) -> argparse.Namespace:
    """Return the options of the command on a page."""
    tool, *options = page.partition("`python ")[2].partition("`")[0].split()
    assert tool == "tools/experiments/tpu_vgg.py"
    return tpu_vgg.parser().parse_args(options)


def test_what_earlier_commands_did_is_on_the_page_too() -> None:
    study = tiny("cifar10")
    rows = [row("original", 0, 0), row("original", 0, 2), row("l1-reload", 0.3, 2)]
    told = commanded(tpu_vgg.document("cifar10", study, rows, [], [0]))
    assert (told.ratios, told.seeds) == ([0.3, 0.5], [0, 2])


@pytest.mark.parametrize(
    ("ratios", "seeds", "words"),
    [
        ((0.3, 0.9), (0, 1, 2), ["ratios 0.3, 0.9 instead of 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, "]),
        (tuple(n / 10 for n in range(10)), (0, 1, 2, 3), []),
        (tuple(n / 10 for n in range(1, 10)), (0, 2), ["seeds 0, 2 instead of 0, 1, 2"]),
    ],
)
def test_fewer_ratios_and_seeds_are_declared(
    ratios: tuple[float, ...], seeds: tuple[int, ...], words: list[str]
) -> None:
    study = tpu_vgg.shipped("cifar10")
    study = replace(study, sweep=replace(study.sweep, ratios=ratios))
    page = tpu_vgg.document("cifar10", study, [row("original", 0, 0)], [], seeds)
    assert ("Shortened" in page) == bool(words)
    assert all(word in page for word in words)


def test_the_published_command_is_that_of_the_published_figures() -> None:
    """And what it shortens is declared."""
    published = Path(__file__).parents[2] / "docs" / "results" / "tpu-vgg-cifar10"
    page = published.with_suffix(".md").read_text()
    asked, told = commanded(page), json.loads(published.with_suffix(".json").read_text())
    study = tpu_vgg.shortened(tpu_vgg.shipped(asked.study), asked)
    assert study.identity() == told["study"]
    jobs = {("original", 0, seed) for seed in asked.seeds}
    jobs |= set(itertools.product(tpu_study.CURVES, asked.ratios, asked.seeds))
    assert {(row["curve"], row["ratio"], row["seed"]) for row in told["rows"]} == jobs
    short = tpu_vgg.changes(study, asked.seeds, tpu_vgg.shipped(asked.study))
    assert len(short) == 6 and f"**Shortened**: {'; '.join(short)}." in page


@pytest.mark.parametrize(
    ("study", "table", "words"),
    [
        ("cifar10", {}, "; no augmentation, no dropout, no weight decay"),
        ("cifar10", {"flip": True}, "; random flips of the training images,"),
        ("cifar10", {"crop": 4, "flip": True}, "; random shifts and flips of the training images,"),
        ("imagenet", {}, "; random parts and flips of the training images,"),
    ],
)
def test_the_page_tells_how_images_are_augmented(
    study: str, table: dict[str, Any], words: str
) -> None:
    found = tpu_vgg.shipped(study)
    found = replace(found, data=replace(found.data, **table))
    assert words in tpu_vgg.document(study, found, [row("original", 0, 0)], [], [0])


def test_steps_are_measured_in_a_process_of_their_own(tmp_path: Path) -> None:
    study = tiny("cifar10")
    module = tpu_study.vgg16(study.network).eval()
    path = tmp_path / "model.onnx"
    irprune.from_torch(module, (torch.zeros(2, 3, 32, 32),)).save(path)
    found = tpu_study.apart(path, study)
    assert found["step_s"] > 0 and found["memory_bytes"] > 0 and found["hardware"]


@pytest.mark.usefixtures("quick")
def test_a_stopped_study_goes_on(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny("cifar10")
    study = replace(study, train=replace(study.train, epochs=2))
    runs = Runs(study, tmp_path / "a", pictures)
    with monkeypatch.context() as patch:
        ticks = itertools.count(1)
        clock = SimpleNamespace(monotonic=lambda: next(ticks), perf_counter=time.perf_counter)
        patch.setattr(tpu_study, "time", clock)
        with pytest.raises(OutOfTime):  # in the third job, between its two epochs
            replace(runs, end=5).run([0])
    assert len(runs.records()) == 2
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 1
    begun: list[str] = []
    runs = replace(runs, log=begun.append)
    runs.run([0])
    assert sum("training" in line for line in begun) == 2
    begun.clear()
    runs.run([0])
    assert begun == []
    assert not list(tmp_path.rglob("checkpoint.pt"))
    other = Runs(study, tmp_path / "b", pictures)
    other.run([0])

    def told(rows: list[Record]) -> list[object]:
        return [(r["curve"], r["accuracy"], r["loss"], r["params"]) for r in rows]

    assert told(runs.records()) == told(other.records())
    changed = replace(study, network=replace(study.network, hidden=64))
    with pytest.raises(IrpruneError, match="other options"):
        Runs(changed, tmp_path / "a", pictures).run([0])
    told = json.loads((tmp_path / "a" / "study.json").read_text())
    assert study.identity() | {"examples": told["examples"]} == told


def test_what_is_asked_for_is_counted_alone() -> None:
    """Not what a folder holds of other seeds and ratios besides."""
    study = tiny("cifar10")

    def rows(seed: int, ratio: float) -> list[Record]:
        return [{"curve": curve, "ratio": ratio, "seed": seed} for curve in tpu_study.CURVES]

    done = [{"curve": "original", "ratio": 0.0, "seed": 0}, *rows(0, 0.5)[:2]]
    other = rows(0, 0.3) + rows(1, 0.5)
    assert tpu_vgg.progress(study, done + other, [0]) == (3, 4)
    assert tpu_vgg.progress(study, done + other, [0, 1]) == (6, 8)


def unpruned() -> list[Record]:
    """An original, which the two reloading curves train once more, and the third from scratch."""
    found = {"original": 0.6, "scaling-reload": 0.7, "scaling-scratch": 0.5, "l1-reload": 0.7}
    return [row(curve, 0.0, 0, accuracy) for curve, accuracy in found.items()]


def test_the_original_has_a_row_of_its_own() -> None:
    rows = [*unpruned(), row("l1-reload", 0.3, 0, 0.4)]
    whole, again, pruned = tpu_vgg.table(rows, "tpu-v2")[2:]
    assert whole.startswith("| original | 60.00 | 60.00 | 60.00 |")
    assert again.startswith("| 0% | 70.00 | 50.00 | 70.00 |")
    assert pruned.startswith("| 30% | - | - | 40.00 | - |")


def test_a_curve_begins_at_the_original_or_at_that_trained_once_more() -> None:
    again = unpruned()
    assert tpu_vgg.of(again[:2], "accuracy", 0, "scaling-reload") == [0.7]
    assert tpu_vgg.of(again[:2], "accuracy", 0, "l1-reload") == [0.6]
    assert tpu_vgg.of(again, "accuracy", 0.3, "l1-reload") == []


def test_the_papers_findings_are_about_pruned_networks() -> None:
    rows = [*unpruned(), *(row(curve, 0.3, 0) for curve in tpu_study.CURVES)]
    assert [line.endswith("of 1 pairs |") for line in tpu_vgg.findings(rows, "cifar10")[3:]] == [
        True,
        True,
    ]


def test_a_global_scope_compares_scaling_factors_as_they_are() -> None:
    network = tpu_study.Network(size=32, hidden=16, classes=2, width=1 / 16)
    module, random = tpu_study.vgg16(network), np.random.default_rng(0)
    scales: dict[str, np.ndarray] = {}
    for name, layer in module.named_modules():  # the deeper, the larger
        if isinstance(layer, torch.nn.BatchNorm2d):
            found = (1 + len(scales)) * random.uniform(size=layer.num_features)
            layer.weight.data = torch.from_numpy(np.float32(found))
            scales[f"{name}.weight"] = found
    model = irprune.from_torch(module.eval(), (torch.zeros(2, 3, 32, 32),))
    text = tpu_study.pipeline("scaling-reload", 0.5, "global")
    kept = irprune.run(text, model, verify=False).plan.axes
    removed = np.concatenate([found[~kept[name][0]] for name, found in scales.items()])
    chosen = [found[kept[name][0]] for name, found in scales.items() if kept[name][0].sum() > 1]
    assert len(chosen) > 6 and len(removed) > 100
    assert removed.max() < np.concatenate(chosen).min()


@pytest.mark.parametrize("change", ["precision", "data"])
def test_a_study_goes_on_as_it_began(tmp_path: Path, pictures: Path, change: str) -> None:
    study, runs = tiny("cifar10"), tmp_path / "runs"
    with pytest.raises(OutOfTime):
        Runs(study, runs, pictures, end=0).run([0])
    if change == "precision":
        study = replace(study, machine=replace(study.machine, precision="bf16-mixed"))
    else:
        with np.load(pictures) as found:
            np.savez(tmp_path / "p.npz", **{name: found[name][::-1] for name in found})
        pictures = tmp_path / "p.npz"
    with pytest.raises(IrpruneError, match="other options"):
        Runs(study, runs, pictures, end=0).run([0])

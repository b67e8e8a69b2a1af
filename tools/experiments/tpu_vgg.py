"""The TPU paper's study of VGG-16: what pruning costs in accuracy, and saves in training.

    python tools/experiments/tpu_vgg.py --study cifar10 --data ~/.cache/irprune/cifar10.npz
    python tools/experiments/tpu_vgg.py --study cifar10 --data ... \\
        --epochs 4 --images 5000 --tested 2000 --width 0.25 --ratios 0.3 0.6 0.9 --seeds 0
    python tools/experiments/tpu_vgg.py --study imagenet --data imagenet --minutes 0

Chen et al., "Structured Model Pruning of Convolutional Networks on Tensor Processing Units": train
VGG-16, prune a ratio of the channels of its convolutions, train again; by scaling factors and
reloaded weights, by scaling factors from scratch, by L1 norms and reloaded weights. Settings stand
in tpu_vgg_STUDY.toml; what an option shortens the table declares. The same command goes on where it
was stopped (``--minutes`` stops it), and writes tpu-vgg-STUDY.{json,md} and the paper's three
figures from what is there. (``../shared/data/unpack.py cifar10 DIR`` makes cifar10.npz.)
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tpu_study import CURVES, OutOfTime, Picked, Record, Runs, Study, Sweep, read_study

from irprune.atomic import write_text
from irprune.explore.settings import DataSet

HERE = Path(__file__).parent
STUDIES = ("cifar10", "imagenet")
SEEDS = (0, 1, 2)
TABLES = {
    "epochs": "train",
    "images": "sweep",
    "tested": "sweep",
    "width": "network",
    "scope": "sweep",
    "device": "sweep",
    "accelerator": "machine",
    "precision": "machine",
}
"""Where the options of one value stand in a study."""
LABELS = {
    "scaling-reload": "scaling factor, reloaded",
    "scaling-scratch": "scaling factor, from scratch",
    "l1-reload": "L1 norm, reloaded",
}
COLORS = {"scaling-reload": "black", "scaling-scratch": "tab:red", "l1-reload": "tab:blue"}
"""Those of the paper."""
PICKED: dict[Picked, str] = {"first": "the first ones", "spread": "spread over all"}
SUSTAINED = {"cifar10": 0.3, "imagenet": 0.1}
"""The ratio up to which the paper finds the original's accuracy."""
SHAPED = ("scaling-reload", "scaling-scratch")
"""Curves whose networks figures 3 and 4 show: pruned by scaling factors."""


def shipped(name: str) -> Study:
    """Return a study as it is shipped: the paper's settings."""
    return read_study(HERE / f"tpu_vgg_{name}.toml")


def shortened(study: Study, options: argparse.Namespace) -> Study:
    """Return the study that the options ask for (IrpruneError: a number is out of range)."""
    if options.ratios is not None:
        ratios = tuple(round(ratio, 6) for ratio in options.ratios)
        study = replace(study, sweep=replace(study.sweep, ratios=ratios))
    for name, table in TABLES.items():
        if (value := getattr(options, name)) is not None:
            study = replace(study, **{table: replace(getattr(study, table), **{name: value})})
    return study


def command(name: str, study: Study, seeds: Sequence[int]) -> str:
    """Return the command that makes a study of the one that is shipped; DATA lies anywhere."""
    whole = shipped(name)
    words = ["python tools/experiments/tpu_vgg.py --study", name, "--data DATA"]
    for option, table in TABLES.items():
        have, want = (getattr(getattr(each, table), option) for each in (study, whole))
        words += [f"--{option} {have}"] if have != want else []
    if study.sweep.ratios != whole.sweep.ratios:
        words += ["--ratios", *(f"{ratio:g}" for ratio in study.sweep.ratios)]
    if tuple(seeds) != SEEDS:
        words += ["--seeds", *map(str, seeds)]
    return " ".join(words)


def changes(study: Study, seeds: Sequence[int], whole: Study) -> list[str]:
    """Say where a study falls short of another one."""
    pairs: list[tuple[str, Any, Any]] = [
        ("epochs", study.train.epochs, whole.train.epochs),
        ("training images", *(used(s, s.images) for s in (study.sweep, whole.sweep))),
        ("test images", *(used(s, s.tested) for s in (study.sweep, whole.sweep))),
        ("width", study.network.width, whole.network.width),
        ("scope", study.sweep.scope, whole.sweep.scope),
    ]
    for name, found, asked in (
        ("ratios", study.sweep.ratios, whole.sweep.ratios),
        ("seeds", seeds, SEEDS),
    ):
        if not set(asked) <= set(found):  # more of them is no less
            pairs.append((name, *(", ".join(f"{n:g}" for n in each) for each in (found, asked))))
    return [
        f"{name} {have} instead of {'all' if want is None else want}"
        for name, have, want in pairs
        if have != want
    ]


def used(sweep: Sweep, count: int | None) -> str | None:
    """Say how many images are used and which; None: all."""
    return None if count is None else f"{count} ({PICKED[sweep.picked]})"


def augmentation(data: DataSet) -> str:
    """Say what training draws at random of its images; an image folder always does."""
    folder = data.name == "imagefolder"
    drawn = {"parts": folder, "shifts": data.crop > 0, "flips": folder or data.flip}
    names = [name for name, is_drawn in drawn.items() if is_drawn]
    return f"random {' and '.join(names)} of the training images" if names else "no augmentation"


def spread(values: Sequence[float], form: str = ".2f") -> str:
    if not values:
        return "-"
    text = format(np.mean(values), form)
    return text if len(values) == 1 else f"{text} ± {format(np.std(values, ddof=1), form)}"


def ratios_of(rows: list[Record]) -> list[float]:
    """Return the ratios at which there are jobs besides the original."""
    return sorted({row["ratio"] for row in rows if row["curve"] != "original"})


def of(rows: list[Record], key: str, ratio: float, *curves: str) -> list[float]:
    """Return what the jobs at a ratio have, of some curves; at 0 by default the original's."""
    at = [row for row in rows if row["ratio"] == ratio]
    own = [row[key] for row in at if row["curve"] in curves]
    return own or [row[key] for row in at if row["curve"] == "original"]


def table(rows: list[Record], device: str) -> list[str]:
    """Return a row of the original, and one per ratio."""
    lines = [
        "| pruned | " + " | ".join(f"{label}: accuracy (%)" for label in LABELS.values()) + " "
        "| parameters (M) | GMACs | memory (MiB) "
        f"| {device} (MiB) | step (ms) | {device} (ms) |",
        "| ---: | " + " | ".join("---:" for _ in range(len(LABELS) + 6)) + " |",
    ]
    kind = lambda row: (row["curve"] != "original", row["ratio"])  # noqa: E731
    for pruned, ratio in sorted(set(map(kind, rows))):
        group = [row for row in rows if kind(row) == (pruned, ratio)]
        cells = [
            spread([100 * row["accuracy"] for row in group if row["curve"] in (curve, "original")])
            for curve in CURVES
        ]
        for key, scale, form in (
            ("params", 1e-6, ".2f"),
            ("macs", 1e-9, ".3f"),
            ("memory_bytes", 2**-20, ".0f"),
            ("model_memory_bytes", 2**-20, ".1f"),
            ("step_s", 1e3, ".1f"),
            ("model_step_s", 1e3, ".2f"),
        ):
            values = [row[key] for row in group if row["curve"] in (*SHAPED, "original")]
            cells.append(format(scale * np.median(values), form) if values else "-")
        name = f"{ratio:.0%}" if pruned else "original"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def findings(rows: list[Record], name: str) -> list[str]:
    """Return the paper's findings beside what was measured, in percentage points."""
    by = {(r["curve"], r["ratio"], r["seed"]): 100 * r["accuracy"] for r in rows}
    ratio = SUSTAINED[name]
    lost = [
        by["original", 0.0, seed] - accuracy
        for (curve, at, seed), accuracy in by.items()
        if curve == "scaling-reload" and at == ratio
    ]
    lines = [
        "| the paper | measured here |",
        "| --- | --- |",
        f"| no loss at {ratio:.0%} pruned (scaling factor, reloaded) "
        f"| {spread(lost)} points lost, {len(lost)} seed(s) |",
    ]
    for title, other in (
        ("reloaded above from scratch", "scaling-scratch"),
        ("scaling factor above L1 norm", "l1-reload"),
    ):
        gains = [
            accuracy - by[other, at, seed]
            for (curve, at, seed), accuracy in by.items()
            if curve == "scaling-reload" and at and (other, at, seed) in by
        ]
        above = sum(gain > 0 for gain in gains)
        lines.append(
            f"| {title} | {spread(gains)} points, above in {above} of {len(gains)} pairs |"
        )
    return lines


def progress(study: Study, rows: list[Record], seeds: Sequence[int]) -> tuple[int, int]:
    """Return how many of the trainings that a study and seeds ask for are done, and of how many."""
    wanted = {("original", 0.0, seed) for seed in seeds}
    wanted |= set(product(CURVES, study.sweep.ratios, seeds))
    return len(wanted & {(row["curve"], row["ratio"], row["seed"]) for row in rows}), len(wanted)


def document(
    name: str, study: Study, rows: list[Record], figures: Sequence[str], asked: Sequence[int]
) -> str:
    """Return the page of a study, of which some seeds are asked for.

    It shows what earlier commands did of other ratios and seeds too.
    """
    done, jobs = progress(study, rows, asked)
    ratios = tuple(sorted({*study.sweep.ratios, *ratios_of(rows)}))
    study = replace(study, sweep=replace(study.sweep, ratios=ratios))
    trained = sorted({row["seed"] for row in rows})
    seeds = sorted({*asked, *trained})
    short = changes(study, seeds, shipped(name))
    places = sorted({f"{row['hardware']}, {row['threads']} threads" for row in rows})
    device = study.sweep.device
    optimizer = study.train.optimizer
    lines = [
        f"# VGG-16 by pruned ratio: {name}",
        "",
        f"`{command(name, study, seeds)}`; {'; '.join(places)}; {study.machine.precision}.",
        "",
        f"Every training: batch {study.train.batch}, {study.train.epochs} epochs, "
        f"{optimizer.name.upper()} with momentum {optimizer.momentum:g} and a learning rate of "
        f"{optimizer.lr:g}; {augmentation(study.data)}, no dropout, no weight decay (the "
        f"paper says nothing of them). Seeds: {', '.join(map(str, trained))}. Reloaded networks "
        "have been trained twice.",
        "",
        *([f"**Shortened**: {'; '.join(short)}.", ""] if short else []),
        *([f"Unfinished: {done} of {jobs} trainings are done.", ""] if done < jobs else []),
        f"Pruned are the channels of the convolutions, "
        f"{'the same ratio in each' if study.sweep.scope == 'local' else 'ranked over all'}; no "
        "training has a penalty on scaling factors, for the paper trains all networks alike and "
        "names none (docs/decisions/tpu-study.md). "
        "Memory and step: of training steps after the last epoch, in a process of its own "
        "(on a CPU the growth of its resident set); beside them the analytic model of "
        f"{device}, whose layout pads (no TPU was used). Both by networks pruned by scaling "
        "factors, the median.",
        "",
        *table(rows, device),
        "",
        *findings(rows, name),
        "",
        *[f"![figure]({figure})" for figure in figures],
    ]
    return "\n".join(lines).rstrip() + "\n"


def draw(name: str, study: Study, rows: list[Record], out: Path) -> list[str]:
    """Draw figures 2 to 4 of the paper; return their names."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ratios = sorted({0.0, *ratios_of(rows)})
    names = [f"tpu-vgg-{name}-{number}.png" for number in (2, 3, 4)]

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for curve, label in LABELS.items():
        points = [
            (ratio, 100 * np.mean(found))
            for ratio in ratios
            if (found := of(rows, "accuracy", ratio, curve))
        ]
        axes.plot(*zip(*points, strict=True), "o-", color=COLORS[curve], label=label)
    axes.set(xlabel="pruned ratio of channels", ylabel="accuracy, %")
    axes.legend()
    _save(figure, out / names[0])

    def medians(key: str) -> Any:
        values = [(r, np.median(v)) for r in ratios if (v := of(rows, key, r, *SHAPED))]
        return np.array(values).T

    device = study.sweep.device
    for file, kind, scale, unit in (
        (names[1], "memory_bytes", 2**-20, "MiB"),
        (names[2], "step_s", 1e3, "ms"),
    ):
        figure, axes = pyplot.subplots(figsize=(6, 4))
        what = kind.partition("_")[0]
        at, here = medians(kind)
        lines = axes.plot(at, scale * here, "o-", color="black", label=f"{what}, measured here")
        axes.set(xlabel="pruned ratio of channels", ylabel=f"{what} here, {unit}", ylim=(0, None))
        other = axes.twinx()
        at, there = medians(f"model_{kind}")
        label = f"{what}, model of {device}"
        lines += other.plot(at, scale * there, "s--", color="tab:green", label=label)
        other.set(ylabel=f"{what} of {device}, {unit}", ylim=(0, None))
        if what == "memory":
            third = axes.twinx()
            at, params = medians("params")
            lines += third.plot(at, params / 1e6, "^:", color="tab:orange", label="parameters")
            third.spines.right.set_position(("axes", 1.17))
            third.set(ylabel="parameters, M", ylim=(0, None))
        axes.legend(handles=lines, loc="lower left")
        _save(figure, out / file)
    return names


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=90, bbox_inches="tight")
    pyplot.close(figure)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--study", choices=STUDIES, default="cifar10")
    add("--data", type=Path, required=True, help="the data set's file or folder")
    add("--runs", type=Path, default=Path.home() / ".cache" / "irprune" / "tpu-vgg")
    add("--out", type=Path, default=Path("docs/results"))
    add("--seeds", type=int, nargs="+", default=[*SEEDS])
    add("--ratios", type=float, nargs="+", help="0: the original, trained once more")
    add("--minutes", type=float, default=float("inf"), help="stop after these; 0: only report")
    add("--epochs", type=int, help="a shortened training")
    add("--images", type=int, help="training images; those of a folder are spread over its classes")
    add("--tested", type=int, help="test images, likewise")
    add("--width", type=float, help="share of the channels of the original VGG-16")
    add("--scope", choices=("local", "global"))
    add("--device", help="whose layout the analytic model has")
    add("--accelerator", choices=("auto", "cpu", "cuda"))
    add("--precision", choices=("32-true", "bf16-mixed"))
    return made


def main() -> None:
    options = parser().parse_args()
    study = shortened(shipped(options.study), options)
    end = time.monotonic() + 60 * options.minutes

    def log(message: str) -> None:
        print(message, file=sys.stderr, flush=True)

    runs = Runs(study, options.runs / options.study, options.data, end, log)
    try:
        runs.run(options.seeds)
    except OutOfTime:
        log("the minutes are over; the same command goes on")
    rows = runs.records()
    if not rows:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figures = draw(options.study, study, rows, options.out)
    text = document(options.study, study, rows, figures, options.seeds)
    print(text)
    stem = options.out / f"tpu-vgg-{options.study}"
    write_text(stem.with_suffix(".md"), text)
    found = {"study": study.identity(), "rows": rows}
    write_text(stem.with_suffix(".json"), json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

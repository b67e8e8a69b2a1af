"""What `iterate_table.py report` writes: tables and figures of the rounds that are there."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irprune.atomic import write_text
from irprune.explore.iterate.records import Record, read_record
from irprune.host import cpu

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import publish

CONFIGS = {"lenet300": "lenet300-mnist", "lenet5": "lenet5-cifar10"}
METHODS = ("ilp", "iap", "aiap")
STATISTICS = {"mean": "mean activations", "sum": "sums of activations"}
"""What AIAP compares with its threshold, where a method names it: `aiap-mean`."""
LOSSES = (0.0, 0.01, 0.03, 0.05)
SWEPT = 0.4
"""Share of the filters that a sweep of rewinding epochs leaves, in one round."""
NOISE = 0.01
"""Twice the standard error of an accuracy near 70 % on 10,000 images."""
PAPER = {
    "lenet300": {
        "baseline": (0.9734, 0.0020),
        "at": (0.0123, {"ilp": 0.4459, "iap": 0.6805, "aiap": 0.6697}),
        "compression": {},
    },
    "lenet5": {
        "baseline": (0.6957, 0.0061),
        "at": (0.0505, {"ilp": 0.4204, "iap": 0.6366, "aiap": 0.5827}),
        "compression": {
            0.0: {"ilp": 2.42, "iap": 2.55, "aiap": 3.95},
            0.01: {"ilp": 4.77, "iap": 7.75, "aiap": 15.88},
        },
    },
}
Runs = dict[str, dict[int, list[Record]]]
"""Records of every round, by method and seed; `aiap-0.1` is AIAP with λ = 0.1, `aiap-mean` by
mean activations."""


def records(folder: Path) -> list[Record]:
    """Return the records of the rounds that are done."""
    return [read_record(path) for path in sorted(folder.glob("round-*/record.json"))]


def methods_of(options: argparse.Namespace) -> list[str]:
    """Return the paper's methods, and AIAP in each other way that some seed was run with."""
    start = f"{options.net}-"
    names = {path.name.removeprefix(start) for path in options.runs.glob(f"{start}aiap-*-*")}
    found = {name.rpartition("-")[0] for name in names}
    found |= {method for method in known(options) if method.startswith("aiap-")}
    return [*METHODS, *sorted(found)]


def known(options: argparse.Namespace) -> Runs:
    """Return the runs of an earlier report."""
    if options.known is None:
        return {}
    told = json.loads(options.known.read_text())
    return {
        method: {int(seed): rows for seed, rows in found.items()} for method, found in told.items()
    }


def title(method: str) -> str:
    name, *variants = method.split("-")
    return ", ".join([name.upper(), *(STATISTICS.get(one, f"λ = {one}") for one in variants)])


def gathered(options: argparse.Namespace, methods: Sequence[str]) -> Runs:
    """Return the runs of some methods that have a round; those without any seed are there too."""
    found: Runs = {method: {} for method in methods}
    earlier = known(options)
    for method, seed in product(methods, options.seeds):
        rows = records(options.runs / f"{options.net}-{method}-{seed}")
        if len(rows) < 2:
            rows = earlier.get(method, {}).get(seed, [])
        if len(rows) > 1:
            found[method][seed] = rows
    return found


def within(rows: list[Record], loss: float) -> list[Record]:
    """Return the rounds whose accuracy is at most `loss` below the original's."""
    return [row for row in rows if row["accuracy"] >= rows[0]["accuracy"] - loss - 1e-9]


def largest(
    rows: list[Record], loss: float, count: Literal["compression_paper", "compression_physical"]
) -> float:
    return max(row[count] for row in within(rows, loss))


def going_on(rows: list[Record], loss: float) -> bool:
    """Return whether the last round so far is within a loss, or nearly so: later ones may be."""
    return rows[-1] in within(rows, loss + NOISE)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    if not values:
        return "-"
    text = format(np.mean(values), form)
    return text if len(values) == 1 else f"{text} ± {format(np.std(values, ddof=1), form)}"


def accuracy_at(rows: list[Record], remaining: float) -> float:
    """Return the accuracy where so large a share of the parameters remains, interpolated."""
    shares = [1 / row["compression_paper"] for row in rows]
    if min(shares) > remaining:
        return float("nan")
    found = np.interp(np.log(remaining), np.log(shares[::-1]), [r["accuracy"] for r in rows][::-1])
    return float(found)


def tables(net: str, runs: Runs, rate: Runs) -> list[str]:
    paper = PAPER[net]
    accuracies = {
        seed: 100 * rows[0]["accuracy"] for found in runs.values() for seed, rows in found.items()
    }
    mean, deviation = paper["baseline"]
    lines = [
        f"Original: {spread([*accuracies.values()])} % over {len(accuracies)} seed(s); "
        f"the paper has {mean:.2%} ± {deviation:.2%}.",
        "",
        "Largest compression within an accuracy loss, mean ± standard deviation over seeds "
        "(≥: the last round so far is within it, or misses it by less than a point; the run goes "
        "on):",
        "",
        "| loss | method | paper's counting | physical | the paper | seeds |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for loss in LOSSES:
        for method, found in runs.items():
            theirs = paper["compression"].get(loss, {}).get(method)
            cells = [
                spread([largest(rows, loss, "compression_paper") for rows in found.values()]),
                spread([largest(rows, loss, "compression_physical") for rows in found.values()]),
            ]
            if any(going_on(rows, loss) for rows in found.values()):
                cells = [f"≥ {cell}" for cell in cells]
            told = "-" if theirs is None else f"{theirs:.2f}"
            row = f"| {loss:.0%} | {title(method)} | {cells[0]} | {cells[1]} | {told} |"
            lines.append(f"{row} {len(found)} |")
    share, wanted = paper["at"]
    lines += ["", f"Accuracy with {share:.2%} of the parameters left (paper's counting):", ""]
    lines += ["| method | measured | the paper |", "| --- | ---: | ---: |"]
    for method, found in runs.items():
        values = [100 * accuracy_at(rows, share) for rows in found.values()]
        values = [value for value in values if np.isfinite(value)]
        measured = f"{spread(values)} %" if values else "-"
        theirs = f"{wanted[method]:.2%}" if method in wanted else "-"
        lines.append(f"| {title(method)} | {measured} | {theirs} |")
    lines += ["", "MACs of ILP over those of the method, within an accuracy loss (figure 5):", ""]
    others = list(runs)[1:]
    lines += [f"| loss | {' | '.join(map(title, others))} |", f"|{' ---: |' * (len(others) + 1)}"]
    for loss in LOSSES:
        cells = []
        for method in others:
            least = "≥ " if any(going_on(rows, loss) for rows in runs[method].values()) else ""
            cells.append(least + spread(speedups(runs, method, loss)))
        lines.append(f"| {loss:.0%} | {' | '.join(cells)} |")
    if any(rate.values()):
        lines += ["", "IAP by weight rewinding and by learning-rate rewinding:", ""]
        lines += ["| loss | weights: parameters left | learning rate |", "| ---: | ---: | ---: |"]
        for loss in LOSSES:
            pair = [
                spread([100 / largest(rows, loss, "compression_paper") for rows in found.values()])
                for found in (runs["iap"], rate["iap-rate"])
            ]
            lines.append(f"| {loss:.0%} | {pair[0]} % | {pair[1]} % |")
    return lines


def speedups(runs: Runs, method: str, loss: float) -> list[float]:
    """Return, seed by seed, how many times fewer MACs than ILP a method reaches.

    Seeds whose ILP is not through with a loss do not count: what is compared with may still fall.
    """

    def least(rows: list[Record]) -> int:
        return min(row["macs"] for row in within(rows, loss))

    base = {seed: rows for seed, rows in runs["ilp"].items() if not going_on(rows, loss)}
    return [least(base[s]) / least(rows) for s, rows in runs[method].items() if s in base]


def threshold_notes(runs: Runs) -> list[str]:
    lines = []
    for method, by_seed in runs.items():
        found = [
            rows for rows in by_seed.values() if method not in ("ilp", "iap") and len(rows) > 4
        ]
        if not found:
            continue
        last = [rows[-1]["threshold"] for rows in found]
        trained = [sum(r["removed"] > 0 for r in rows) for rows in found]
        lines += [
            "",
            f"{title(method)}: the threshold follows the parameters of the "
            f"{found[0][0]['threshold_kind']} layers; it reached {spread(last)} after "
            f"{spread([len(r) - 1 for r in found], '.0f')} rounds, of which "
            f"{spread(trained, '.0f')} removed filters and were trained (the others repeat the "
            "round before, whose result they equal).",
        ]
    return lines


def plot(net: str, runs: Runs, swept: dict[str, list[Any]], out: Path) -> list[str]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = []
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for colour, (method, found) in enumerate(runs.items()):
        for number, rows in enumerate(found.values()):
            shares = [100 / row["compression_paper"] for row in rows]
            style = {"color": f"C{colour}", "alpha": 0.8, "marker": "."}
            label = title(method) if not number else None
            axes.plot(shares, [100 * row["accuracy"] for row in rows], label=label, **style)
    axes.set(xscale="log", xlabel="parameters left, % (paper's counting)", ylabel="accuracy, %")
    axes.invert_xaxis()
    axes.legend()
    names.append(_saved(figure, out / f"iterate-{net}-4.png"))
    figure, axes = pyplot.subplots(figsize=(6, 3.5))
    others = list(runs)[1:]
    width = 0.8 / len(others)
    for number, method in enumerate(others):
        values = [
            np.nan
            if any(going_on(rows, loss) for rows in runs[method].values())
            else np.mean(speedups(runs, method, loss) or [np.nan])
            for loss in LOSSES
        ]
        axes.bar(np.arange(4) + width * (number + 0.5), values, 0.95 * width, label=title(method))
    axes.set_xticks(np.arange(4) + 0.4, [f"{loss:.0%}" for loss in LOSSES])
    axes.axhline(1, color="gray", linewidth=1)
    axes.set(xlabel="accuracy loss", ylabel="MACs of ILP / MACs")
    axes.legend()
    names.append(_saved(figure, out / f"iterate-{net}-5.png"))
    if any(swept.values()):
        figure, both = pyplot.subplots(1, 2, figsize=(9, 3.5))
        for axes, key in zip(both, ("accuracy", "stability"), strict=True):
            for what, rows in swept.items():
                epochs = sorted({epoch for epoch, _ in rows})
                means = [np.mean([r[key] for e, r in rows if e == epoch]) for epoch in epochs]
                axes.plot(epochs, means, marker="o", label=what)
            axes.set(xlabel="rewound to epoch", ylabel=key)
            axes.legend()
        names.append(_saved(figure, out / f"iterate-{net}-6.png"))
    return names


def _saved(figure: Any, path: Path) -> str:
    figure.savefig(path, dpi=90, bbox_inches="tight")
    return path.name


def sweeps(options: argparse.Namespace) -> dict[str, list[Any]]:
    """Return (epoch, record of round 1) by what is rewound."""
    found: dict[str, list[Any]] = {"weights": [], "learning-rate": []}
    for what, rows in found.items():
        for path in sorted(options.runs.glob(f"{options.net}-sweep-{what}-*-*")):
            done = records(path)
            if len(done) > 1:
                rows.append((int(path.name.split("-")[-2]), done[1]))
    return found


def sweep_table(swept: dict[str, list[Any]]) -> list[str]:
    if not any(swept.values()):
        return []
    lines = ["", f"Rewound to each epoch, {SWEPT:.0%} of the filters left after one round:", ""]
    lines += ["| epoch | weights: accuracy | stability | learning rate: accuracy | stability |"]
    lines += ["| ---: | ---: | ---: | ---: | ---: |"]
    for epoch in sorted({e for rows in swept.values() for e, _ in rows}):
        cells = []
        for rows in swept.values():
            mine = [r for e, r in rows if e == epoch]
            cells.append(spread([100 * r["accuracy"] for r in mine]))
            cells.append(spread([r["stability"] for r in mine]))
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return lines


def page(net: str, runs: Runs, rate: Runs, swept: dict[str, list[Any]]) -> list[str]:
    """Return the lines of the page, but for its figures."""
    return [
        f"# Iterative pruning with rewinding: {CONFIGS[net]}",
        "",
        f"`python tools/experiments/iterate_table.py run --net {net}`, then `report`; "
        f"{cpu()}, {os.cpu_count()} cores, CPU only.",
        "",
        "*Paper's counting*: a removed filter takes its own weights alone; *physical*: the next",
        "layer's columns are gone too, as in the files.",
        "",
        *tables(net, runs, rate),
        *threshold_notes(runs),
        *sweep_table(swept),
        "",
    ]


def report(options: argparse.Namespace) -> None:
    runs, rate = gathered(options, methods_of(options)), gathered(options, ("iap-rate",))
    swept = sweeps(options)
    options.out.mkdir(parents=True, exist_ok=True)
    figures = plot(options.net, runs, swept, options.out)
    lines = page(options.net, runs, rate, swept)
    lines += [*[f"![figure]({figure})" for figure in figures], ""]
    publish("\n".join(lines), options.out / f"iterate-{options.net}.md")
    slim = {
        method: {
            seed: [{k: v for k, v in r.items() if k != "latency_s"} for r in rows]
            for seed, rows in found.items()
        }
        for method, found in (runs | rate).items()
    }
    write_text(options.out / f"iterate-{options.net}.json", json.dumps(slim) + "\n")

"""How well the latency model predicts: random plans, predicted against measured end to end.

    python tools/latency_model.py run MODEL.onnx... --threads 1   # adds to the results, resumable
    python tools/latency_model.py report                          # docs/results/latency-model.md

Of each model, a device without any cache is profiled (the time is noted), then random plans that it
was not profiled on are measured, each beside the unpruned model in the same run. Two of three plans
have widths in multiples of the step, one has any widths. `--cache DIR` keeps measurements between
models instead, to see what further models reuse: the first one is only profiled, to fill it. Run it
alone on the machine: what runs on its other processors shares caches and memory with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from results import Row, by_cpu, keep, kept, key_of, publish

from irprune import api
from irprune.analyses import ChannelClasses, Groups
from irprune.backends.ort.bench import OrtBencher
from irprune.backends.ort.device import CpuDevice
from irprune.cache import VARIABLE
from irprune.designs import FRACTIONS, designs
from irprune.passbase import Context
from irprune.passes.choice.candidates import Candidates
from irprune.protocols import BenchSettings

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PLANS = 20
SEED = 20_000  # the designed plans that are profiled have seed 0
LIMIT_S = 4
"""Seconds that one plan is measured."""


def candidates(path: Path) -> Candidates:
    """The normalised model and its plans."""
    model = api.run("normalize", api.load(path), verify=False).model
    context = Context()
    channels = context.get(ChannelClasses(), model)
    return Candidates.of(model, channels, context.get(Groups(), model), context)


def study(path: Path, threads: int) -> Row:
    """Profile one model, then measure random plans; predictions and measurements in seconds."""
    base = candidates(path)
    channels = base.channels
    device = CpuDevice.parse(f"cpu:{threads}")
    start = time.monotonic()
    model = device.costs(base, lambda line: print(line, file=sys.stderr))
    profiled = time.monotonic() - start
    plans = islice(designs(channels, base.groups, 16, SEED), len(FRACTIONS), len(FRACTIONS) + PLANS)
    rows = []
    bencher = OrtBencher()
    settings = BenchSettings(processes=3, precision=0.01, limit_s=LIMIT_S, threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        original, pruned = Path(folder) / "original.onnx", Path(folder) / "pruned.onnx"
        base.write(np.ones(channels.count, np.bool_), original)
        for keep in plans:
            base.write(keep, pruned)
            first, second = bencher.bench([original, pruned], base.feeds, settings).rows
            assert first.latency and second.latency and second.ratio, second.error
            rows.append(
                {
                    "predicted": float(model.seconds(channels.lengths(keep)[None])[0]),
                    "measured": second.latency.value,
                    "original": first.latency.value,
                    "ratio": second.ratio.value,
                }
            )
    return {"profile_s": profiled, "profiled": model.runs, "whole": model.whole_s, "plans": rows}


def errors(entry: Row) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors of the latency on the clock of the original, and on that of the wall.

    The original was measured when its plans were profiled and again beside each plan here: the
    first error sets both to one clock, the second has the drift of the machine in it.
    """
    plans = entry["plans"]
    ratio = [row["predicted"] / entry["whole"] / row["ratio"] - 1 for row in plans]
    absolute = [row["predicted"] / row["measured"] - 1 for row in plans]
    return np.abs(ratio), np.abs(absolute)


def run(options: argparse.Namespace) -> None:
    results = kept(options.results)
    tag, models = "fresh", options.models
    if options.cache:
        tag, (first, *models) = "reuse", models
        os.environ[VARIABLE] = str(options.cache)
        CpuDevice.parse(f"cpu:{options.threads}").costs(candidates(first), print)
    for path in models:
        name = key_of(path.name.partition(".")[0], options.threads, tag)
        if name in results:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.environ[VARIABLE] = str(options.cache or folder)
            results[name] = study(path, options.threads)
        keep(options.results, results)
        ratio, absolute = errors(results[name])
        took = f"{results[name]['profiled']} plans in {results[name]['profile_s']:.0f} s"
        print(
            f"{name} profiled {took}; error of the ratio: median {np.median(ratio):.3f}, "
            f"95% {np.percentile(ratio, 95):.3f}; absolute: median {np.median(absolute):.3f}",
            flush=True,
        )


def report(options: argparse.Namespace) -> None:
    lines = [
        "# The latency model against measurements",
        "",
        "`python tools/latency_model.py run MODEL.onnx...` and then `report`: random plans that",
        "were not profiled, on onnxruntime's CPU provider. *Ratio*: predicted latency over that of",
        "the unpruned model when its plans were profiled, against the ratio measured now.",
        "*reuse* profiled after other models, with their cache.",
    ]
    for cpu, rows in by_cpu(kept(options.results)).items():
        for threads in sorted({number for (_, number, _), _ in rows}):
            mine = [(name, tag, row) for (name, number, tag), row in rows if number == threads]
            lines += ["", f"## {cpu}, threads: {threads}", "", *table(mine)]
    publish("\n".join(lines) + "\n", options.results.with_suffix(".md"))


def table(rows: list[tuple[str, str, Row]]) -> list[str]:
    """Names, kinds of cache and results of the models as markdown."""
    lines = [
        "| model | cache | profiled plans | seconds | ratio: median error | 95 % | worst "
        "| absolute: median error | 95 % |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, tag, entry in rows:
        lines.append(
            f"| {name} | {tag} | {entry['profiled']} | {entry['profile_s']:.0f} "
            + _row(*errors(entry))
        )
    for kind in sorted({tag for _, tag, _ in rows}):
        found = [errors(entry) for _, tag, entry in rows if tag == kind]
        ratio, absolute = (np.concatenate(part) for part in zip(*found, strict=True))
        lines.append(f"| **all {kind}: {len(ratio)} plans** | | | " + _row(ratio, absolute))
    return lines


def _row(ratio: np.ndarray, absolute: np.ndarray) -> str:
    parts = (
        np.median(ratio),
        np.percentile(ratio, 95),
        ratio.max(),
        np.median(absolute),
        np.percentile(absolute, 95),
    )
    return "| " + " | ".join(f"{100 * part:.1f} %" for part in parts) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS / "latency-model.json")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run")
    command.add_argument("models", type=Path, nargs="+")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--cache", type=Path)
    commands.add_parser("report")
    options = parser.parse_args()
    run(options) if options.command == "run" else report(options)


if __name__ == "__main__":
    main()

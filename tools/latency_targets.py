"""Are latency targets met? Prune to a share of the measured latency, then measure again.

    python tools/zoo_export.py --out DIR --variants dynamo-static --models resnet18 resnet50 ...
    python tools/latency_targets.py --zoo DIR --json latency.json --out docs/results/latency.md

Each row is one run of `prune{latency=TARGET device=auto}` and, in processes of its own, one later
measurement of its file beside the original. Rows in the JSON file are not measured again, so a
long run can go on where it stopped. Networks with random weights: only speed is judged here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from results import Row, Rows, by_cpu, keep, kept, key_of, publish

from irprune import api
from irprune.backends.ort.bench import OrtBencher
from irprune.errors import CheckFailed
from irprune.proof.feeds import make_feeds
from irprune.protocols import BenchSettings

MODELS = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "densenet121",
    "googlenet", "inception_v3", "regnet_y_400mf", "squeezenet1_1", "shufflenet_v2_x1_0", "vgg16",
    "vit_b_16", "swin_t", "convnext_tiny",
)  # fmt: skip
INEXACT = ("vit_b_16", "swin_t", "convnext_tiny")
"""Networks whose streams pass LayerNorm: `allow=inexact` lets them lose channels."""
TOLERANCE = 0.015


def pipeline(model: str, target: float, extra: str = "") -> str:
    """The pipeline of a model and a target."""
    allow = " allow=inexact" if model in INEXACT else ""
    return f"normalize, prune{{latency={target} device=auto{allow}{extra}}}, compact"


def measured(paths: Sequence[Path], threads: int, limit: float) -> list[list[float] | None]:
    """Ratio and interval of each file to the first, in new processes."""
    feeds = make_feeds(api.load(paths[0]).ir, {}, 1)
    settings = BenchSettings(precision=0.006, limit_s=limit, threads=threads, seed=1)
    rows = OrtBencher().bench(paths, feeds, settings).rows
    return [row.ratio and [row.ratio.value, row.ratio.low, row.ratio.high] for row in rows]


def judge(file: Path, text: str, threads: int, limit: float, out: Path) -> Row:
    """Prune a file to its target and measure the result again; `out` gets the pruned file."""
    started = time.perf_counter()
    settings = api.Settings(threads=threads, log=log)
    try:
        result = api.run(text, api.load(file), settings=settings, verify=False)
    except CheckFailed as failure:
        steps = (failure.report or {}).get("selection", {}).get("latency", {}).get("steps", [])
        found = [step["measured"] for step in steps if step["measured"]]
        wanted = (failure.report or {}).get("selection", {}).get("latency", {}).get("target", 0)
        nearest = min(found, key=lambda m: abs(m[0] - wanted), default=None)
        taken = time.perf_counter() - started
        return {"error": str(failure), "reachable": nearest, "seconds": taken}
    taken = time.perf_counter() - started
    result.model.save(out)
    selection = result.report["selection"]
    keys = ("kept_importance", "kept_l1", "optimality_gap", "reached")
    return {
        "ratio": measured([file, out], threads, limit)[1],
        "found": selection["latency"]["measured"],
        "predicted": selection["latency"]["predicted"],
        "steps": len(selection["latency"]["steps"]),
        "seconds": taken,
        **{key: selection[key] for key in keys},
    }


def table(rows: list[tuple[list[str], Row]]) -> str:
    """The rows of a CPU as markdown."""
    lines = [
        "| network | target | threads | measured again | 95 % interval | while pruning | steps | "
        "MACs | kept l1 | gap | seconds | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for (name, target, threads), row in rows:
        if "error" in row:
            reach = row["reachable"] and f"{row['reachable'][0]:.3f}"
            lines.append(
                f"| {name} | {target} | {threads} | - | - | {reach} | | | | | "
                f"{row['seconds']:.0f} | cannot be met |"
            )
            continue
        if row["ratio"] is None:
            lines.append(f"| {name} | {target} | {threads} | crash |" + " |" * 8)
            continue
        value, low, high = row["ratio"]
        met = "met" if abs(value - float(target)) <= TOLERANCE else "missed"
        lines.append(
            f"| {name} | {target} | {threads} | {value:.3f} | {low:.3f} to {high:.3f} | "
            f"{row['found'][0]:.3f} | {row['steps']} | {row['reached']['macs']:.3f} | "
            f"{row['kept_l1']:.3f} | {row['optimality_gap']:.2%} | {row['seconds']:.0f} | {met} |"
        )
    return "\n".join(lines)


def counts(rows: list[tuple[list[str], Row]]) -> str:
    """How many rows of a CPU meet each target."""
    lines = []
    for target, threads in sorted({(at, threads) for (_, at, threads), _ in rows}, reverse=True):
        mine = [row for (_, *how), row in rows if how == [target, threads]]
        good = [row for row in mine if row.get("ratio")]
        met = sum(abs(row["ratio"][0] - float(target)) <= TOLERANCE for row in good)
        slower = sum(row["ratio"][1] > 1 for row in good)
        lines.append(
            f"- `latency={target}`, threads: {threads}: {met} of {len(mine)} within "
            f"{TOLERANCE} of the target; {slower} slower than their originals."
        )
    return "\n".join(lines)


def document(rows: Rows) -> str:
    """The whole report as markdown."""
    command = "python tools/latency_targets.py --zoo DIR --json FILE --out FILE"
    note = (
        "Ratio of the latency to that of the original on onnxruntime's CPU provider, one image, "
        "random weights. *Measured again*: afterwards, in new processes. *Gap*: how much of the "
        "range between keeping least and all the best choice could add at most. *Seconds*: the "
        "whole run, profiling and measuring included."
    )
    parts = ["# Latency targets", f"`{command}`", note]
    for cpu, mine in by_cpu(rows).items():
        parts += [f"## {cpu}", counts(mine), table(mine)]
    return "\n\n".join(parts) + "\n"


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that all tools have which measure the latency of exported networks."""
    home = os.environ.get("IRPRUNE_ZOO", "~/.cache/irprune/zoo")
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path(home).expanduser(), metavar="DIR")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="read and written")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the markdown here")
    return parser


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--targets", nargs="*", type=float, default=[0.5])
    parser.add_argument("--threads", nargs="*", type=int, default=[1])
    parser.add_argument("--limit", type=float, default=15, help="seconds of the last measurement")
    parser.add_argument("--extra", default="", help="further options of prune")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the pruned files here")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    rows = kept(args.json)
    extra = f" {args.extra}" if args.extra else ""
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.models:
            for target in args.targets:
                for threads in args.threads:
                    key = key_of(name, target, threads)
                    if key in rows:
                        continue
                    file = args.zoo / f"{name}.dynamo-static.onnx"
                    out = folder / f"{name}-{target}-{threads}.onnx"
                    text = pipeline(name, target, extra)
                    rows[key] = judge(file, text, threads, args.limit, out)
                    log(f"{key}: {rows[key]}")
                    keep(args.json, rows)
    text = document(rows)
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

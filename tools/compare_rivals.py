"""irprune side by side with Torch-Pruning and onnxsim: what is removed, right, and how fast.

    OMP_NUM_THREADS=1 python tools/compare_rivals.py --out docs/results/rivals.md

Every tool prunes the same weights at ratio 0.5 by local l1 importance of the producing layers; the
classifier is kept. All are judged on ONNX files: the share of Conv, ConvTranspose, Gemm and MatMul
weights that is gone, whether onnxruntime runs the file, and whether it computes what the original
with the removed channels masked computes: irprune by its own proof, the others by finding the
surviving weights in the original again. Needs what `tools/zoo_export.py --variants dynamo-static`
writes for the chosen networks.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import torch
import zoo_export
import zoo_models
from hard_cases import CASES
from rivals_tools import RATIO, SELECT, TOOLS, Network, Outcome, judge, torch_pruner

from irprune import api
from irprune.atomic import write_text
from irprune.backends.ort.runner import OrtRunner
from irprune.passbase import Context
from irprune.pipeline.manager import run_passes
from irprune.protocols import Runner
from irprune.shapes import infer

MODELS = (
    "resnet18", "resnet34", "resnet50", "resnext50_32x4d", "densenet121", "googlenet",
    "inception_v3", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "shufflenet_v2_x1_0", "efficientnet_b0", "regnet_x_400mf", "regnet_y_400mf", "mnasnet1_0",
    "squeezenet1_0", "squeezenet1_1", "alexnet", "vgg11",
)  # fmt: skip
TIMED = (
    "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3",
    "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "regnet_y_400mf",
)  # fmt: skip
Results = dict[str, dict[str, Outcome]]  # by network and tool

WITHIN = 0.003  # shares that differ by no more count as equal


def zoo_network(name: str, zoo: Path) -> Network:
    """Torchvision's network `name` and its export in the folder `zoo`, of the same weights."""
    file = zoo / f"{name}.dynamo-static.onnx"
    if not file.exists():
        raise SystemExit(f"{file} is missing: tools/zoo_export.py --variants dynamo-static")
    network = zoo_models.networks()[name]
    return Network(name, zoo_export.build(network), file, network.inputs(1, 2))


def hard_network(name: str, folder: Path) -> Network:
    """The small network `name` of hard_cases.py, exported into `folder`."""
    file = folder / f"{name}.onnx"
    CASES[name].export(file)
    return Network(name, CASES[name].build(), file, CASES[name].example(1))


def time_tools(network: Network, rounds: int) -> dict[str, float]:
    """Median seconds of each tool in process, and the median ratio of ours to Torch-Pruning's.

    Interleaved, after one round that is not counted.
    """
    taken = [_round(network) for _ in range(rounds + 1)][1:]
    medians = {name: statistics.median(row[name] for row in taken) for name in taken[0]}
    return medians | {"ratio": statistics.median(r["irprune"] / r["Torch-Pruning"] for r in taken)}


def _round(network: Network) -> dict[str, float]:
    """Seconds of each tool, once; files are read and networks copied before the clock starts."""
    model, context = api.load(network.file).clone(), Context()
    infer(model.ir)
    normalize, select = api.resolve_pipeline("normalize"), api.resolve_pipeline(SELECT)
    module, proto = copy.deepcopy(network.module), onnx.load(network.file)
    return {
        "normalize": _timed(lambda: run_passes(normalize, model, context)),
        "irprune": _timed(lambda: run_passes(select, model, context)),
        "Torch-Pruning": _timed(lambda: torch_pruner(module, network)),
        "onnxsim": _timed(
            lambda: onnxsim.apply_structured_pruning(proto, RATIO, importance_norm="l1")
        ),
    }


def _timed(work: Callable[[], object]) -> float:
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; all columns but the first are right-aligned."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def share(outcome: Outcome) -> str:
    return "-" if outcome.removed is None else f"{outcome.removed:.1%}"


def verdict(outcome: Outcome) -> str:
    """The status, with the error where outputs were compared."""
    if outcome.error is None:
        return outcome.status
    return f"{outcome.status} ({outcome.error:.0e})" if outcome.error else f"{outcome.status} (0)"


def outcomes_table(results: Results, first: str) -> str:
    head = [first, *TOOLS, *(f"{tool}: output" for tool in TOOLS)]
    rows = [
        [name, *map(share, outcomes.values()), *map(verdict, outcomes.values())]
        for name, outcomes in results.items()
    ]
    return table(head, rows)


def details(results: Results) -> str:
    """Why a tool made nothing usable, one line each."""
    lines = [
        f"- {name}, {tool}: {outcome.status}: {outcome.detail.replace('|', '/')}"
        for name, outcomes in results.items()
        for tool, outcome in outcomes.items()
        if outcome.status != "ok" and outcome.detail
    ]
    return "\n".join(lines)


def times_table(times: dict[str, dict[str, float]]) -> str:
    head = ["network", "irprune", "Torch-Pruning", "onnxsim", "irprune / TP", "normalize"]
    order = ("irprune", "Torch-Pruning", "onnxsim")
    rows = [
        [
            name, *(f"{row[tool]:.3f} s" for tool in order),
            f"{row['ratio']:.2f}", f"{row['normalize']:.3f} s",
        ]
        for name, row in times.items()
    ]  # fmt: skip
    return table(head, rows)


def shortfalls(results: Results) -> list[str]:
    """Networks of which irprune removes less than Torch-Pruning."""
    found = []
    for name, outcomes in results.items():
        mine, theirs = outcomes["irprune"].removed, outcomes["Torch-Pruning"].removed
        if theirs is not None and (mine is None or mine < theirs - WITHIN):
            found.append(name)
    return found


def document(
    zoo: Results,
    hard: Results,
    times: dict[str, dict[str, float]],
) -> str:
    """The whole report as markdown."""
    command = shlex.join([f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')}", "python"])
    tools = ("torch-pruning", "onnxsim", "onnxruntime", "torch", "torchvision")
    parts = [
        "# Side by side with Torch-Pruning and onnxsim",
        f"`{command} tools/compare_rivals.py {shlex.join(sys.argv[1:])}`",
        f"Ratio {RATIO}, local, l1 of the producing layers, classifier kept. "
        + ", ".join(f"{tool} {version(tool)}" for tool in tools)
        + ". Shares: Conv, ConvTranspose, Gemm and MatMul weights removed. Output: *ok* runs and "
        "equals the original with the removed channels masked, *wrong* runs and differs, "
        "*unknown* runs but what it kept cannot be told, *invalid* does not run, *crash* the "
        "tool failed, *refused* it said why it would not. In brackets the largest relative "
        "error: for irprune of any activation over its proof's inputs, for the others of the "
        "outputs on one.",
    ]
    for title, results in (("torchvision", zoo), ("Small networks with a trap", hard)):
        if results:
            counts = [
                f"{tool} {sum(o[tool].status == 'ok' for o in results.values())}" for tool in TOOLS
            ]
            parts += [f"## {title}", outcomes_table(results, "network")]
            parts.append(f"*ok* of {len(results)}: {', '.join(counts)}.")
            parts.append(details(results))
    if zoo:
        behind = ", ".join(shortfalls(zoo)) or "none"
        parts.append(
            f"Networks of which irprune removes less than Torch-Pruning (by more than "
            f"{WITHIN:.1%}): {behind}."
        )
    if times:
        median = statistics.median(row["ratio"] for row in times.values())
        parts += [
            "## Seconds in process",
            "irprune: `prune` and `compact` on a normalised model; Torch-Pruning: "
            "`BasePruner(...)` and `step()`; onnxsim: `apply_structured_pruning`. One thread, "
            "interleaved, medians. `normalize` is what irprune does once before.",
            times_table(times),
            f"Median ratio of irprune to Torch-Pruning: **{median:.2f}**.",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def compare(
    names: Sequence[str], build: Callable[[str], Network], folder: Path, runner: Runner
) -> Results:
    """Judge every named network, one line of progress each."""
    results: Results = {}
    for name in names:
        started = time.perf_counter()
        results[name] = judge(build(name), folder, runner)
        said = "  ".join(f"{t} {share(o)} {verdict(o)}" for t, o in results[name].items())
        log(f"{name:<24}{said}  [{time.perf_counter() - started:.0f} s]")
    return results


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    home = os.environ.get("IRPRUNE_ZOO", "~/.cache/irprune/zoo")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--zoo", type=Path, default=Path(home).expanduser(), metavar="DIR")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--hard", nargs="*", default=list(CASES), metavar="NAME")
    parser.add_argument("--timed", nargs="*", default=list(TIMED), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds per network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the markdown here")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    times: dict[str, dict[str, float]] = {}
    for name in args.timed:
        times[name] = time_tools(zoo_network(name, args.zoo), args.rounds)
        log(f"{name:<24}" + "  ".join(f"{k} {v:.3f}" for k, v in times[name].items()))
    with tempfile.TemporaryDirectory() as scratch, OrtRunner() as runner:
        folder = Path(scratch)
        zoo = compare(args.models, lambda name: zoo_network(name, args.zoo), folder, runner)
        hard = compare(args.hard, lambda name: hard_network(name, folder), folder, runner)
    text = document(zoo, hard, times)
    print(text)
    if args.out:
        write_text(args.out, text)
    if args.json:
        data: dict[str, Any] = {"ratio": RATIO, "times": times}
        for key, results in (("zoo", zoo), ("hard", hard)):
            data[key] = {n: {t: asdict(o) for t, o in r.items()} for n, r in results.items()}
        write_text(args.json, json.dumps(data, indent=1) + "\n")
    return int(bool(shortfalls(zoo)))


if __name__ == "__main__":
    raise SystemExit(main())

"""Does `irprune bench` say the same twice?  Pairs of whole runs of the command, compared.

    python tools/bench_repeat.py prepare FOLDER                 # export the networks, halve them
    python tools/bench_repeat.py measure FOLDER --seconds 150   # as many runs as fit; call it again
    python tools/bench_repeat.py table FOLDER

A repeat is two runs of `irprune bench network.onnx half.onnx`, each a process of its own, one after
the other; it agrees where the two ratios differ by 2 % of the smaller at most. Runs are kept in
FOLDER/runs.json, so that `measure` goes on where the last call stopped. Run it alone on the
machine. Needs tools/requirements.txt to export.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NETWORKS = ("resnet18", "mobilenet_v2")
PIPELINE = "normalize, prune{macs=0.5 align=auto}, compact"
REPEATS = 20
TOLERANCE = 0.02


def prepare(folder: Path) -> None:
    """Write each network and its half into the folder."""
    from balance import exported

    from irprune import api

    for name in NETWORKS:
        original, half = files(folder, name)
        if not half.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(exported(name, folder / name), original)
            api.run(PIPELINE, api.load(original)).model.save(half)


def files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.onnx", folder / f"{name}_half.onnx"


def measure(folder: Path, names: list[str], seconds: float, options: list[str]) -> None:
    """Run pairs in turn until all repeats are there or the time is over."""
    store = folder / "runs.json"
    runs: dict[str, list[dict[str, Any]]] = json.loads(store.read_text()) if store.exists() else {}
    end = time.monotonic() + seconds
    for number in range(2 * REPEATS):
        for name in names:
            done = runs.setdefault(name, [])
            if len(done) > number:
                continue
            if time.monotonic() > end:
                return
            done.append(run(folder, name, options))
            store.write_text(json.dumps(runs, indent=1))
            print(name, number, done[-1], flush=True)


def run(folder: Path, name: str, options: list[str]) -> dict[str, Any]:
    """One run of the command: its ratio, interval, rounds, notes and wall seconds."""
    command = [sys.executable, "-m", "irprune", "bench", *map(str, files(folder, name)), "--json"]
    started = time.monotonic()
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    seconds = time.monotonic() - started
    facts = json.loads(done.stdout)
    half = facts["models"][1]
    return {
        "ratio": half["ratio"],
        "interval": half["ratio_interval"],
        "median_s": [row["median_s"] for row in facts["models"]],
        "rounds": facts["rounds"],
        "notes": facts["notes"] + [note for row in facts["models"] for note in row["notes"]],
        "seconds": round(seconds, 1),
    }


def table(folder: Path) -> None:
    """Print one row per network."""
    runs = json.loads((folder / "runs.json").read_text())
    print(
        "| network | repeats | within 2 % | largest difference | ratio | width of its interval "
        "| rounds | seconds per run | runs with notes |\n| --- " + "| ---: " * 8 + "|"
    )
    for name, done in runs.items():
        ratios = [each["ratio"] for each in done]
        apart = [max(a, b) / min(a, b) - 1 for a, b in zip(ratios[::2], ratios[1::2], strict=False)]
        width = statistics.median((r["interval"][1] - r["interval"][0]) / r["ratio"] for r in done)
        print(
            f"| {name} | {len(apart)} | {sum(a <= TOLERANCE for a in apart)} | {max(apart):.1%} "
            f"| {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
            f"| {width:.1%} | {statistics.median(r['rounds'] for r in done):.0f} "
            f"| {statistics.median(r['seconds'] for r in done):.1f} "
            f"| {sum(bool(r['notes']) for r in done)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("prepare", "measure", "table"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=150, help="start no run after these")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--bench", default="", help="options of `irprune bench`, as one text")
    arguments = parser.parse_args()
    if arguments.what == "prepare":
        prepare(arguments.folder)
    elif arguments.what == "measure":
        options = shlex.split(arguments.bench)
        measure(arguments.folder, arguments.networks, arguments.seconds, options)
    else:
        table(arguments.folder)


if __name__ == "__main__":
    main()

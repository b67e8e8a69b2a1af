"""Prune the shipped digit classifier to half its MACs, prove it, benchmark it, show a table.

Run it with ``make demo``. Needs the extra ``cpu`` and nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from irprune import api
from irprune.backends.ort.runner import OrtRunner

EXAMPLES = Path(__file__).parents[1] / "examples"
PIPELINE = "normalize, prune{macs=0.5 align=auto}, compact"


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images whose largest logit is the label."""
    with OrtRunner() as runner:
        logits = next(iter(runner.run(path, {"input": images}, optimize=True).values()))
    return float((logits.argmax(axis=1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", default=PIPELINE)
    parser.add_argument("--batch", type=int, default=32, help="images per inference when timing")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    original = EXAMPLES / "digits.onnx"
    test = np.load(EXAMPLES / "digits_test.npz", allow_pickle=False)
    images, labels = test["input"], test["label"]
    log = api.Settings(log=lambda line: print(line, file=sys.stderr))
    result = api.run(options.pipeline, api.load(original), settings=log)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.onnx"
        result.model.save(small)
        feeds = api.Settings(feeds={"input": images[: options.batch]})
        timing = api.BenchSettings(rounds=options.rounds)
        bench = api.bench([original, small], settings=feeds, timing=timing)
        hits = [accuracy(path, images, labels) for path in (original, small)]
    before, after = result.report["before"], result.report["after"]
    times = [row["median_s"] * 1e3 for row in bench["models"]]
    rows = [
        ("MACs per image", before["macs"], after["macs"], "{:,}"),
        ("parameters", before["params"], after["params"], "{:,}"),
        (f"ms per {options.batch} images", times[0], times[1], "{:.3f}"),
    ]
    print(f"{'':<20}{'original':>14}{'pruned':>14}{'ratio':>8}")
    for name, a, b, form in rows:
        print(f"{name:<20}{form.format(a):>14}{form.format(b):>14}{b / a:>8.2f}")
    print(f"{'test accuracy':<20}{hits[0]:>14.2%}{hits[1]:>14.2%}{hits[1] - hits[0]:>+8.2%}")
    for row in result.report["proof"]:
        print(f"proof: {row['claim']}: {row['verdict']}, largest error {row['max_error']:.1e}")


if __name__ == "__main__":
    main()

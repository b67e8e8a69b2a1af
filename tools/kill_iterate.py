"""Kill `irprune iterate` at random moments: it must come to the table of an uninterrupted run.

    python tools/kill_iterate.py --kills 10

A small network on synthetic data, weight rewinding; each kill is a SIGKILL at a random moment of a
round, and they are spread over the rounds. At the end records.json must be equal byte for byte, and
each round must have been trained exactly as often as without kills: no record is written twice.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import irprune

CONFIG = """
latency = false
[model]
source = "net.onnx"
weights = "fresh"
[data]
name = "npz"
path = "data.npz"
[train]
epochs = 4
batch = 16
[train.optimizer]
name = "nadam"
lr = 0.003
weight_decay = 1e-4
[machine]
accelerator = "cpu"
checkpoint_steps = 7
[rewind]
epoch = 2
what = "{what}"
[prune]
method = "iap"
[objective]
rounds = {rounds}
"""


def prepare(folder: Path, what: str, rounds: int) -> None:
    """Write network, data and configuration."""
    layers = [nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU()]
    module = nn.Sequential(*layers, nn.Linear(64, 4)).eval()
    irprune.from_torch(module, (torch.zeros(2, 1, 8, 8),)).save(folder / "net.onnx")
    draw = np.random.default_rng(0)
    y = draw.integers(0, 4, 2400)
    x = (draw.normal(size=(2400, 1, 8, 8)) + y[:, None, None, None] / 3).astype(np.float32)
    np.savez(
        folder / "data.npz", x_train=x[:2000], y_train=y[:2000], x_test=x[2000:], y_test=y[2000:]
    )
    (folder / "run.toml").write_text(CONFIG.format(what=what, rounds=rounds))


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "irprune", "iterate", folder / "run.toml", "-o", out]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(process: subprocess.Popen[str], out: Path, number: int) -> None:
    """Wait until a round has begun."""
    while process.poll() is None and not (out / f"round-{number:03d}").is_dir():
        time.sleep(0.01)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"iterate failed: {errors}")


def stamps(out: Path) -> dict[str, int]:
    """When the record of each round was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/record.json")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", choices=("weights", "learning-rate"), default="weights")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.what, options.rounds)
        whole, cut = folder / "whole", folder / "cut"
        process = start(folder, whole)
        begun(process, whole, 1)
        began = time.monotonic()
        finish(process)
        count = len(stamps(whole))
        each = (time.monotonic() - began) / (count - 1)
        print(f"uninterrupted: {count} records, {each:.1f} s each after the first")
        done: dict[str, int] = {}
        kills = 0
        while kills < options.kills:
            process = start(folder, cut)
            begun(process, cut, kills * count // options.kills)
            time.sleep(draw.uniform(0, each))
            if process.poll() is not None:
                finish(process)
                break
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            now = stamps(cut)
            again = [n for n, stamp in done.items() if now.get(n) != stamp]
            if again:
                raise SystemExit(f"rounds lost or repeated after kill {kills}: {again}")
            done = now
            files = len(list(cut.rglob("*")))
            print(f"kill {kills}: {len(now)} rounds recorded, {files} files", flush=True)
        finish(start(folder, cut))
        if any(stamps(cut)[n] != stamp for n, stamp in done.items()):
            raise SystemExit("a recorded round was done again")
        one, two = ((out / "records.json").read_bytes() for out in (whole, cut))
        if one != two:
            raise SystemExit("the tables differ")
        print(f"{kills} kills: the same table of {len(stamps(cut))} rounds, byte for byte")


if __name__ == "__main__":
    main()

"""The tables and figures of the iterative activation-based paper, measured beside its numbers.

    python tools/experiments/iterate_table.py run --net lenet300 --data ../shared/data/mnist
    python tools/experiments/iterate_table.py sweep --net lenet300 --data ../shared/data/mnist
    python tools/experiments/iterate_table.py report --net lenet300 --out docs/results

`run` does ILP, IAP and AIAP on every seed with the configurations of examples/iterate; `sweep`
rewinds to every epoch, and rewinds the learning rate alone. Both go on where they were stopped
(`--minutes` stops them), and methods of a seed share one trained original. `report` writes
iterate-NET.{md,json} and the figures from what is there. Compactions are not proved here
(`--verify` proves them): tests and `irprune iterate` do.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from iterate_report import CONFIGS, METHODS, STATISTICS, SWEPT, report

from irprune.explore.iterate import iterate, read_config
from irprune.explore.iterate.config import Config, Objective, Pruning, Rewinding

EXAMPLES = Path(__file__).parents[2] / "examples" / "iterate"


class OutOfTime(Exception):
    """The minutes are over; what was done so far stays."""


def config_of(options: argparse.Namespace, method: str) -> Config:
    name, *variants = method.split("-")
    config = read_config(EXAMPLES / f"{CONFIGS[options.net]}-{name}.toml")
    how = replace(config.prune, verify=options.verify)
    for one in variants:
        how = replace(how, activation=one) if one in STATISTICS else replace(how, step=float(one))
    objective = replace(config.objective, **_asked(rounds=options.rounds))
    train = replace(config.train, **_asked(epochs=options.epochs))
    rewind = replace(config.rewind, **_asked(epoch=options.rewind))
    machine = replace(config.machine, precision=options.precision, channels_last=True)
    return replace(
        config,
        prune=how,
        objective=objective,
        train=train,
        rewind=rewind,
        machine=machine,
    )


def _asked(**numbers: int | None) -> dict[str, Any]:
    """Return what stands instead of a configuration's numbers."""
    return {name: number for name, number in numbers.items() if number is not None}


def do(config: Config, seed: int, folder: Path, options: argparse.Namespace, **more: Any) -> None:
    """Run or go on with one iterative run, until the minutes are over."""

    def log(message: str) -> None:
        if time.monotonic() > options.end:
            raise OutOfTime
        print(f"{folder.name}: {message}", file=sys.stderr, flush=True)

    iterate(config, folder, seed=seed, home=EXAMPLES, data=options.data, log=log, **more)


def run(options: argparse.Namespace) -> None:
    for seed in options.seeds:
        base = None
        for method in options.methods:
            folder = options.runs / f"{options.net}-{method}-{seed}"
            do(config_of(options, method), seed, folder, options, base=base)
            base = base or folder


def sweep(options: argparse.Namespace) -> None:
    """Rewind weights and learning rate, or the latter, to every epoch; and IAP by the latter."""
    config = config_of(options, "iap")
    once = Pruning("iap", conv=(1 - SWEPT,), dense=(1 - SWEPT,), verify=options.verify)
    for seed in options.seeds:
        for epoch in range(config.train.epochs):
            base = None
            for what in ("weights", "learning-rate"):
                one = replace(
                    config,
                    rewind=Rewinding(epoch, what),  # type: ignore[arg-type]
                    prune=once,
                    objective=Objective(rounds=1),
                )
                folder = options.runs / f"{options.net}-sweep-{what}-{epoch}-{seed}"
                do(one, seed, folder, options, base=base)
                base = base or folder
        rate = replace(config, rewind=Rewinding(config.rewind.epoch, "learning-rate"))
        base = options.runs / f"{options.net}-ilp-{seed}"
        folder = options.runs / f"{options.net}-iap-rate-{seed}"
        do(rate, seed, folder, options, base=base if base.is_dir() else None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("job", choices=("run", "sweep", "report"))
    parser.add_argument("--net", choices=tuple(CONFIGS), default="lenet300")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=METHODS,
        help="ilp, iap, aiap; aiap-0.1 is AIAP with λ = 0.1 instead of the configuration's, "
        "aiap-mean by mean activations instead of sums over space",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="the data set's folder or file")
    parser.add_argument("--runs", type=Path, default=Path.home() / ".cache" / "irprune" / "iterate")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument(
        "--known",
        type=Path,
        help="an earlier iterate-NET.json: its runs are reported where there is none here",
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--rounds", type=int, help="instead of the configuration's")
    parser.add_argument("--epochs", type=int, help="a shortened training: say so beside the table")
    parser.add_argument("--rewind", type=int, help="with --epochs: the epoch to rewind to")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--verify", action="store_true", help="prove every compaction")
    options = parser.parse_args()
    options.end = time.monotonic() + 60 * options.minutes
    try:
        {"run": run, "sweep": sweep, "report": report}[options.job](options)
    except OutOfTime:
        print("the minutes are over; the same command goes on", file=sys.stderr)


if __name__ == "__main__":
    main()

"""`irprune iterate`: prune, rewind and retrain in rounds."""

from __future__ import annotations

from pathlib import Path

import click

from irprune.cli import common
from irprune.cli.format import table


@click.command(cls=common.Command)
@click.argument("config", type=common.FILE)
@click.option(
    "-o", "--output", type=common.FILE, required=True, metavar="FOLDER", help="Write the run here."
)
@click.option("--data", type=common.FILE, help="Path of the data set, instead of CONFIG's.")
@click.option("--seed", type=common.SEED, help="Seed, instead of CONFIG's.")
@click.option(
    "--base",
    type=common.FILE,
    metavar="FOLDER",
    help="Take the trained original network over from this other run.",
)
@common.common
def iterate(
    config: Path,
    output: Path,
    data: Path | None,
    seed: int | None,
    base: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a network, then prune, rewind and retrain it in rounds, as CONFIG.toml says.

    Every round's model, plan and record are written into FOLDER, with a report of all. The same
    command goes on where a killed one stopped. A model that CONFIG names as file.py:factory is
    executed.
    """
    from irprune.explore.iterate import iterate as run

    records = run(config, output, seed=seed, data=data, base=base, log=common.log)
    rows = [
        [
            str(record["round"]),
            f"{record['accuracy']:.2%}",
            f"{record['params']:,}",
            f"{record['compression_paper']:.2f}x",
            f"{record['compression_physical']:.2f}x",
            f"{record['macs']:,}",
        ]
        for record in records
    ]
    heads = ["round", "accuracy", "params", "paper", "physical", "MACs"]
    common.emit(records, table([heads, *rows]), as_json)

"""`irprune bench`: latency of models on onnxruntime, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from irprune.cli import common
from irprune.cli.format import table
from irprune.errors import CheckFailed


@click.command(cls=common.Command)
@click.argument("models", type=common.FILE, nargs=-1, required=True)
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True)
@click.option("--warmup", type=click.IntRange(0), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--provider", default="CPUExecutionProvider", show_default=True)
@common.seed
@common.inputs
@common.common
def bench(
    models: tuple[Path, ...],
    rounds: int,
    warmup: int,
    threads: int,
    provider: str,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Measure the latency of MODELS, interleaved, each relative to the first."""
    from irprune import api

    settings = common.settings(seed, shapes, feeds)
    facts = api.bench(
        models,
        settings=settings,
        rounds=rounds,
        warmup=warmup,
        threads=threads,
        provider=provider,
    )
    common.emit(facts, _text(facts), as_json)
    failed = [row for row in facts["models"] if row["error"]]
    if failed:
        raise CheckFailed(failed[0]["error"], file=failed[0]["path"])


def _text(facts: dict[str, Any]) -> str:
    rows = [["model", "median", "ratio"]]
    for row in facts["models"]:
        if row["error"]:
            rows.append([row["path"], "failed", "-"])
        else:
            ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
            rows.append([row["path"], f"{row['median_s'] * 1e3:.3f} ms", ratio])
    return table(rows, indent="")

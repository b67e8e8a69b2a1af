"""The report of an iterative run: a table of its rounds, and which of them are worth having."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from irprune.atomic import write_text
from irprune.explore.iterate.config import Config
from irprune.explore.iterate.measure import pareto
from irprune.explore.iterate.records import Record


def write_report(
    config: Config, records: Sequence[Record], folder: Path, batch: int | None
) -> None:
    """Write ``records.json`` and ``report.md`` into the run's folder."""
    write_text(folder / "records.json", json.dumps(list(records), indent=1, allow_nan=False) + "\n")
    write_text(folder / "report.md", report(config, records, batch))


def report(config: Config, records: Sequence[Record], batch: int | None) -> str:
    """Return the report as markdown.

    Args:
        batch: what the network's file fixes.
    """
    how, train, kind = config.prune, config.train, records[0]["threshold_kind"]
    lines = [
        f"# {how.method.upper()} on {config.model.source}, {config.data.name}",
        "",
        f"{train.epochs} epochs, rewound to {config.rewind.epoch} ({config.rewind.what}); "
        f"{train.optimizer.name}, lr {train.optimizer.lr:g}, batch {train.batch}, "
        f"seed {train.seed}.",
    ]
    if how.method == "aiap":
        layers = "convolutions" if kind == "conv" else "dense layers (there is no convolution)"
        lines.append(f"The threshold follows the parameters of the {layers}.")
    if batch is not None:
        lines.append(f"MACs and latency are of {batch} examples, the batch that the file fixes.")
    lines += [
        "",
        "Compression is parameters before over after. *Paper*: a removed filter takes its own",
        "weights alone; *physical*: what the files hold, the next layer's columns gone too.",
        "A star marks rounds that no other beats in both accuracy and that cost.",
        "",
        "| round | accuracy | params | paper | physical | MACs | stability | T | latency |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *_rows(records),
        "",
        f"Widths after the last round: {_widths(records[-1])}.",
        "",
    ]
    return "\n".join(lines)


def _rows(records: Sequence[Record]) -> list[str]:
    best = {cost: set(pareto(records, cost)) for cost in ("params", "params_paper", "macs")}

    def starred(record: Record, cost: str, text: str) -> str:
        return text + (" *" if record["round"] in best[cost] else "")

    return [
        f"| {r['round']} | {r['accuracy']:.2%} | {r['params']:,} "
        f"| {starred(r, 'params_paper', format(r['compression_paper'], '.2f') + 'x')} "
        f"| {starred(r, 'params', format(r['compression_physical'], '.2f') + 'x')} "
        f"| {starred(r, 'macs', format(r['macs'], ','))} | {r['stability']:.3f} "
        f"| {r['threshold']:g} | {_time(r['latency_s'])} |"
        for r in records
    ]


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3f} ms"


def _widths(record: Record) -> str:
    return ", ".join(f"{name} {width}" for name, width in record["widths"].items())

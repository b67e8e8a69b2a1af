"""`irprune explain`: what a channel is coupled to and by which ops, or what pins it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irprune.cli import common
from irprune.cli.format import dims, table
from irprune.frontends.source import Source

if TYPE_CHECKING:
    from irprune.walk import Heads

SHOWN = 30


@click.command(cls=common.Command)
@click.argument("model", type=common.FILE)
@click.argument("tensor")
@click.option("--axis", type=int, metavar="K", help="Only this axis; -1 is the last.")
@click.option("--index", type=int, metavar="I", help="Only this position along --axis.")
@common.source
@common.analysis
@common.common
def explain(
    model: Path,
    tensor: str,
    axis: int | None,
    index: int | None,
    after: str,
    heads: Heads,
    allow: tuple[str, ...],
    source: Source,
    as_json: bool,
    debug: bool,
) -> None:
    """Say what the channels of TENSOR in MODEL are coupled to, by which ops, or what pins them."""
    from irprune import api

    settings = common.settings()
    facts = api.explain(
        source.read(model),
        tensor,
        axis,
        index,
        settings=settings,
        after=after,
        heads=heads,
        allow=allow,
    )
    common.emit(facts, _text(facts), as_json)


def _text(facts: dict[str, Any]) -> str:
    blocks = [f"{facts['tensor']} {dims(facts['shape'])}", *map(_axis, facts["axes"])]
    return "\n\n".join(blocks)


def _axis(row: dict[str, Any]) -> str:
    head = f"axis {row['axis']}"
    if row["size"] is None:
        return f"{head}: {row['reason']}"
    if "index" in row:
        head = f"{head}, position {row['index']}"
    if row["classes"] == 0:
        return f"{head}: pinned: {row['reason']}"
    lines = [head]
    if "index" not in row:
        counts = (row["size"], row["classes"], row["pinned"])
        lines = ["{}: {} positions, {} classes, {} pinned".format(head, *counts)]
        if "per" in row:
            lines[0] += f", others for each index of axis {' and '.join(map(str, row['per']))}"
    if row["pinned"]:
        lines.append(f"  pinned: {row['reason']}")
    coupled = [
        [f"{other['tensor']}[{other['axis']}]", _positions(other["positions"])]
        for other in row["coupled"]
    ]
    lines += ["  goes together with", table(_cut(coupled), indent="    ")]
    if row["nodes"]:
        lines += ["  tied by", table(_cut([[node] for node in row["nodes"]]), indent="    ")]
    return "\n".join(lines)


def _positions(found: list[list[int]]) -> str:
    parts = [str(a) if b == a + 1 else f"{a}..{b - 1}" for a, b in found]
    return ", ".join(parts[:8]) + (f", and {len(parts) - 8} more ranges" if len(parts) > 8 else "")


def _cut(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= SHOWN:
        return rows
    return [*rows[:SHOWN], [f"and {len(rows) - SHOWN} more (--json lists them)"]]

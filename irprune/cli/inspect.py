"""`irprune inspect`: what a model costs, what is coupled in it, what is pinned and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irprune.cli import common
from irprune.cli.format import dims, table
from irprune.frontends.source import Source
from irprune.units import quantity, share

if TYPE_CHECKING:
    from irprune.walk import Heads

SHOWN = 30
"""Rows of a list that are shown without `--all`."""


@click.command(cls=common.Command)
@click.argument("model", type=common.FILE)
@click.option("--all", "everything", is_flag=True, help=f"Show more than {SHOWN} rows of a list.")
@common.source
@common.analysis
@common.inputs
@common.common
def inspect(
    model: Path,
    everything: bool,
    after: str,
    heads: Heads,
    allow: tuple[str, ...],
    source: Source,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Show costs, coupled groups, and pinned axes with the reason, of MODEL."""
    from irprune import api

    settings = common.settings(0, shapes, feeds)
    facts = api.inspect(
        source.read(model, shapes=shapes), settings=settings, after=after, heads=heads, allow=allow
    )
    common.emit(facts, _text(facts, None if everything else SHOWN), as_json)


def _text(facts: dict[str, Any], limit: int | None) -> str:
    model, costs, free = facts["model"], facts["costs"], facts["free"]
    opsets = ", ".join(f"{domain or 'ai.onnx'} {n}" for domain, n in model["opsets"].items())
    head = [
        ["model", f"{model['name']} (opset {opsets}; IR {model['ir_version']})"],
        *([["after", facts["after"]]] if facts["after"] else []),
        *(["input", _value(value)] for value in facts["inputs"]),
        *(["output", _value(value)] for value in facts["outputs"]),
        ["nodes", str(model["nodes"])],
        ["parameters", quantity(costs["params"])],
        ["MACs", quantity(costs["macs"])],
        ["weights", quantity(costs["weight_bytes"], "B")],
        [
            "activations",
            f"{quantity(costs['activation_bytes'], 'B')}, "
            f"at most {quantity(costs['peak_activation_bytes'], 'B')} alive",
        ],
        [
            "prunable",
            f"{free['contraction_channels']} of {free['of']} contraction channels "
            f"({share(free['contraction_channels'], free['of'])})",
        ],
    ]
    groups = [
        [group["name"], str(group["classes"]), str(group["balanced"]), _producers(group)]
        for group in facts["groups"]
    ]
    pinned = [
        [f"{row['tensor']}[{row['axis']}]", f"{row['pinned']}/{row['size']}", row["reason"] or ""]
        for row in facts["pinned"]
    ]
    return "\n".join(
        [
            table(head, indent=""),
            "",
            _section("coupled groups", ["name", "classes", "rows", "made by"], groups, limit),
            "",
            _section("pinned axes", ["axis", "pinned", "reason"], pinned, limit),
        ]
    )


def _section(title: str, head: list[str], rows: list[list[str]], limit: int | None) -> str:
    shown = rows[:limit]
    hidden = len(rows) - len(shown)
    lines = [f"{title}: {len(rows)}", *([table([head, *shown])] if rows else [])]
    return "\n".join([*lines, *([f"  and {hidden} more (--all shows them)"] if hidden else [])])


def _value(value: dict[str, Any]) -> str:
    return f"{value['name']} {value['dtype']} {dims(value['shape'])}"


def _producers(group: dict[str, Any]) -> str:
    names = [f"{site['tensor']}[{site['axis']}]" for site in group["producers"]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

"""`irprune passes`: the passes, their options and defaults."""

from __future__ import annotations

from typing import Any

import click

from irprune.cli.common import Command, common, emit
from irprune.cli.format import table
from irprune.errors import IrpruneError


@click.command(cls=Command)
@click.argument("name", required=False)
@common
def passes(name: str | None, as_json: bool, debug: bool) -> None:
    """List passes and presets, or the options of the pass NAME."""
    from irprune.pipeline.options import choices
    from irprune.pipeline.registry import PASSES, PRESETS

    if name is not None and name not in PASSES:
        if name in PRESETS:
            emit({"preset": name, "pipeline": PRESETS[name]}, PRESETS[name], as_json)
            return
        raise IrpruneError(f"unknown pass `{name}`", mend=choices(name, [*PASSES, *PRESETS]))
    found = [_describe(each) for each in (PASSES if name is None else [name])]
    if name is not None:
        emit(found[0], _one(found[0]), as_json)
        return
    rows = [[each["name"], each["help"]] for each in found]
    presets = [[preset, text] for preset, text in PRESETS.items()]
    text = f"{table(rows)}\n\npresets\n{table(presets)}"
    emit({"passes": found, "presets": dict(PRESETS)}, text, as_json)


def _describe(name: str) -> dict[str, Any]:
    from irprune.pipeline.options import describe
    from irprune.pipeline.registry import load_pass

    cls = load_pass(name)
    summary = (cls.__doc__ or "").strip().partition("\n\n")[0]
    return {"name": name, "help": " ".join(summary.split()), "options": describe(cls)}


def _one(found: dict[str, Any]) -> str:
    rows = [
        [option["name"], option["type"], option["default"] or "-", option["help"]]
        for option in found["options"]
    ]
    options = table([["option", "type", "default", ""], *rows]) if rows else "no options"
    return f"{found['name']}: {found['help']}\n\n{options}"

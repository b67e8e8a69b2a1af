"""`irprune device`: the staircases of a device, measured or by arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from irprune.cli import common
from irprune.cli.format import table

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 72


@click.command(cls=common.Command)
@click.argument("model", type=common.FILE, required=False)
@click.option(
    "--device",
    "name",
    default="auto",
    show_default=True,
    help="cpu, cpu:2 (two threads), a provider, tpu-v2, tpu-v3, tensor-core:16, cache-line:16.",
)
@common.inputs
@common.common
def device(
    model: Path | None,
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Show the widths that a device rewards, for the layers of MODEL or of a small sample network.

    A device at hand is measured (for up to two minutes; the measurements are kept for later
    commands), others are worked out.
    """
    from irprune import api

    settings = common.settings(0, shapes, feeds)
    facts = api.device(None if model is None else api.load(model), name, settings=settings)
    common.emit(facts, _text(facts), as_json)


def _text(facts: dict[str, Any]) -> str:
    lines = [f"device {facts['device']}: lengths in multiples of {facts['align']}"]
    if facts["kinds"]:
        rows = [["kernels", "share", "step", "faster where", "error", "without stairs"]]
        for kind in facts["kinds"]:
            where = kind["condition"]
            rows.append(
                [
                    kind["kind"],
                    f"{kind['share']:.1%}",
                    str(kind["step"]),
                    f"{where['axes']} % {where['multiple']} = 0" if where else "-",
                    f"{kind['error']:.1%}",
                    f"{kind['straight_error']:.1%}",
                ]
            )
        lines += ["", table(rows, indent="")]
    for stair in facts["stairs"]:
        shown = ", ".join(map(str, stair["useful"][:12]))
        more = ", ..." if len(stair["useful"]) > 12 else ""
        ends = f"{min(stair['cost']):.3g} to {max(stair['cost']):.3g} {facts['unit']}"
        lines += [
            "",
            f"{stair['tensor']} axis {stair['axis']}, 1 to {stair['length']}: {ends}",
            plot(stair["cost"]),
            f"useful: {shown}{more}",
        ]
    return "\n".join(lines)


def plot(cost: list[float], rows: int = 6) -> str:
    """Draw costs as bars of text; long sweeps show their first columns, where stairs are seen."""
    shown = cost[:_COLUMNS]
    heights = [round(value / max(shown) * rows * 8) for value in shown]
    lines = []
    for row in reversed(range(rows)):
        lines.append("  " + "".join(_BARS[min(8, max(0, h - 8 * row))] for h in heights).rstrip())
    return "\n".join(lines)

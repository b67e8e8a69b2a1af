"""`irprune apply`: the same plan on another checkpoint of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from irprune.cli import common
from irprune.cli.format import summary
from irprune.frontends.source import Source


@click.command(cls=common.Command)
@click.argument("plan", type=common.FILE)
@click.argument("model", type=common.FILE)
@click.option("-o", "--output", type=common.FILE, required=True, metavar="OUT")
@click.option("--no-verify", is_flag=True, help="Do not prove the result.")
@common.source
@common.seed
@common.inputs
@common.common
def apply(
    plan: Path,
    model: Path,
    output: Path,
    no_verify: bool,
    source: Source,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Prune MODEL as PLAN says and write the proved result."""
    from irprune import api
    from irprune.plan import Plan

    common.check_outputs([output], [plan, model, source.weights, feeds])
    settings = common.settings(seed, shapes, feeds)
    result = api.apply(
        Plan.load(plan), source.read(model, seed, shapes), settings=settings, verify=not no_verify
    )
    result.model.save(output)
    common.emit(result.report, summary(result.report), as_json)

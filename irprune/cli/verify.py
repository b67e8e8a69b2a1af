"""`irprune verify`: the proof that a pruned model equals its masked base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from irprune.cli import common
from irprune.cli.format import proof_line
from irprune.frontends.source import Source


@click.command(cls=common.Command)
@click.argument("base", type=common.FILE)
@click.argument("pruned", type=common.FILE)
@click.argument("plan", type=common.FILE)
@common.source
@common.seed
@common.inputs
@common.common
def verify(
    base: Path,
    pruned: Path,
    plan: Path,
    source: Source,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Prove that PRUNED computes what BASE does with the channels that PLAN drops masked."""
    from irprune import api
    from irprune.pipeline.evidence import COMPACTED, require
    from irprune.plan import Plan

    settings = common.settings(seed, shapes, feeds)
    proof = api.verify(
        source.read(base, seed, shapes), api.load(pruned), Plan.load(plan), settings=settings
    )
    facts = {"claim": COMPACTED, **proof.to_json()}
    common.emit(facts, proof_line(facts), as_json)
    require(COMPACTED, proof)

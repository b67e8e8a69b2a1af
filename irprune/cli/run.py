"""`irprune run`: run a pipeline on a model, prove the result, write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from irprune.cli import common
from irprune.cli.format import summary
from irprune.errors import CheckFailed, IrpruneError
from irprune.frontends.source import Source


@click.command(cls=common.Command)
@click.argument("pipeline")
@click.argument("model", type=common.FILE)
@click.option("-o", "--output", type=common.FILE, metavar="OUT", help="Write the model here.")
@click.option("--plan", type=common.FILE, metavar="P.json", help="Write the plan here.")
@click.option(
    "--base", type=common.FILE, metavar="B.onnx", help="Write the plan's base graph here."
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    type=common.FILE,
    metavar="R.json|R.html",
    help="Write the report here, as JSON or as a page; repeat for both.",
)
@click.option("--no-verify", is_flag=True, help="Do not prove the result.")
@click.option("--verify-each", is_flag=True, help="Prove after every pass that transforms.")
@click.option("--print-after", multiple=True, metavar="PASS", help="Print the graph after PASS.")
@click.option("--time-passes", is_flag=True, help="Log the seconds that each pass takes.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="For latency targets."
)
@common.source
@common.seed
@common.inputs
@common.common
def run(
    pipeline: str,
    model: Path,
    output: Path | None,
    plan: Path | None,
    base: Path | None,
    reports: tuple[Path, ...],
    no_verify: bool,
    verify_each: bool,
    print_after: tuple[str, ...],
    time_passes: bool,
    threads: int,
    source: Source,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Run PIPELINE on MODEL and write the proved result.

    PIPELINE is a text such as 'normalize, prune{macs=0.5}, compact', a preset such as default, or
    @FILE. `irprune passes` lists what it may name. MODEL is an ONNX file, or module.py:factory:
    this executes module.py and calls factory(), which returns a torch module or (module, args).
    """
    from irprune import api
    from irprune.pipeline.manager import Hooks

    common.check_reports(reports)
    outputs = [output, plan, base, *reports]
    if not any(outputs):
        raise IrpruneError("nothing to write", mend="add -o OUT.onnx (or --plan, --base, --report)")
    passes = api.resolve_pipeline(pipeline)
    common.check_outputs(outputs, [model, source.weights, feeds])
    hooks = Hooks(
        verify_each=verify_each,
        print_after=print_after,
        time_passes=time_passes,
        reproducers=next(path for path in outputs if path is not None).parent,
    )
    settings = common.settings(seed, shapes, feeds, detail=bool(reports), threads=threads)
    try:
        result = api.run(
            passes,
            source.read(model, seed, shapes),
            settings=settings,
            verify=not no_verify,
            hooks=hooks,
            pending=output is None and base is None,
        )
    except CheckFailed as error:
        if error.report is not None:
            common.write_reports(error.report, reports)
        raise
    if plan is not None:
        result.plan.save(plan)
    if base is not None:
        result.base.save(base)
    common.write_reports(result.report, reports)
    if output is not None:
        result.model.save(output)
    common.emit(result.report, summary(result.report), as_json)

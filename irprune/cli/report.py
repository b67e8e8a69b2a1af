"""`irprune report`: the page on an earlier run."""

from __future__ import annotations

from pathlib import Path

import click

from irprune.cli import common
from irprune.errors import IrpruneError


@click.command(cls=common.Command)
@click.argument("run", type=common.FILE)
@click.option(
    "-o",
    "--output",
    type=common.FILE,
    metavar="OUT.html",
    help="Write the page here; default: beside the report, with the suffix .html.",
)
@common.common
def report(run: Path, output: Path | None, as_json: bool, debug: bool) -> None:
    """Make one self-contained HTML page of an earlier run.

    RUN is the JSON report that `irprune run --report R.json` wrote, or a folder that holds one.
    With --json the data that the page shows is printed as well.
    """
    from irprune.atomic import write_text
    from irprune.reporting.html import render, require
    from irprune.reporting.reading import find, load

    require()
    source = find(run)
    target = source.with_suffix(".html") if output is None else output
    if target.suffix not in common.PAGES:
        raise IrpruneError("the page is HTML", file=target, mend="give a name that ends in .html")
    data = load(source)
    common.check_outputs([target], [source])
    write_text(target, render(data, source))
    common.emit(data, str(target), as_json)

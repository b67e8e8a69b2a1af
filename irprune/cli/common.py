"""What the commands share: options, parameter types, output, and errors with their exit status."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irprune.errors import CheckFailed, IrpruneError
from irprune.frontends.source import Source
from irprune.recipe import SEEDS

if TYPE_CHECKING:
    import numpy as np

    from irprune.api import Settings

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130

FILE = click.Path(path_type=Path)
SEED = click.IntRange(0, SEEDS, max_open=True)
"""What training draws by."""


class Command(click.Command):
    """A command that turns errors into one message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise
        except KeyboardInterrupt:
            log("interrupted")
            status = INTERRUPTED
        except IrpruneError as error:
            log(f"error: {error}")
            status = error.exit_code
            self._trace(ctx)
        except Exception as error:
            what = "".join(traceback.format_exception_only(error)).strip()
            log(f"internal error: {what}; --debug shows where")
            status = CheckFailed.exit_code
            self._trace(ctx)
        ctx.exit(status)

    def _trace(self, ctx: click.Context) -> None:
        if ctx.params.get("debug"):
            traceback.print_exc(file=sys.stderr)


def log(message: str) -> None:
    """One line of progress, on stderr."""
    click.echo(message, err=True)


def emit(data: Any, text: str, as_json: bool) -> None:
    """The result on stdout: `data` as JSON, or else `text`."""
    click.echo(json.dumps(data, indent=2, allow_nan=False) if as_json else text)


def write_json(data: Any, path: Path) -> None:
    """Write `data` to a JSON file, atomically."""
    from irprune.atomic import write_text

    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


PAGES = (".html", ".htm")


def check_reports(reports: Iterable[Path]) -> None:
    """Refuse, before any work, reports of an unknown kind and pages without their libraries."""
    for path in reports:
        if path.suffix not in (".json", *PAGES):
            raise IrpruneError(
                "reports are JSON or HTML",
                file=path,
                mend="give a name that ends in .json or .html",
            )
        if path.suffix in PAGES:
            from irprune.reporting.html import require

            require()


def write_reports(data: Mapping[str, Any], reports: Iterable[Path]) -> None:
    """Write a report to each file, as JSON or as a page by its suffix, atomically."""
    for path in reports:
        if path.suffix in PAGES:
            from irprune.atomic import write_text
            from irprune.reporting.html import render

            write_text(path, render(data))
        else:
            write_json(data, path)


def common(function: F) -> F:
    """The options of every command: `--json` and `--debug`."""
    debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    return as_json(debug(function))


def _shapes(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for value in values:
        name, _, sizes = value.rpartition("=")
        parts = sizes.split("x") if sizes else []
        if not name or not all(part.isascii() and part.isdecimal() for part in parts):
            raise click.BadParameter(f"`{value}` is not of the form NAME=1x3x224x224", ctx, param)
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def inputs(function: F) -> F:
    """The options that say what the graph inputs are: `--shape` and `--inputs`."""
    function = click.option(
        "--inputs",
        "feeds",
        type=FILE,
        metavar="FEEDS.npz",
        help="Arrays for the graph inputs, by name; random ones stand in for the rest.",
    )(function)
    return click.option(
        "--shape",
        "shapes",
        multiple=True,
        callback=_shapes,
        metavar="NAME=1x3x224x224",
        help="Sizes of a graph input; repeat for several inputs.",
    )(function)


def source(function: F) -> F:
    """The options that say how to read a MODEL that is a Caffe network, as one `source`."""

    @click.option(
        "--weights", type=FILE, metavar="X.caffemodel", help="Weights of a .prototxt MODEL."
    )
    @click.option(
        "--phase",
        type=click.Choice(["TEST", "TRAIN"]),
        default="TEST",
        show_default=True,
        help="Take the layers that a .prototxt MODEL has in this phase.",
    )
    @click.option("--stage", "stages", multiple=True, help="... and at this stage; repeatable.")
    @click.option(
        "--end-at-heads",
        is_flag=True,
        help="End a .prototxt MODEL before layers that ONNX cannot hold.",
    )
    @click.option(
        "--dynamic-batch", is_flag=True, help="Let the inputs of a .prototxt MODEL take any batch."
    )
    @wraps(function)
    def packed(
        *args: Any,
        weights: Path | None,
        phase: str,
        stages: tuple[str, ...],
        end_at_heads: bool,
        dynamic_batch: bool,
        **kwargs: Any,
    ) -> Any:
        source = Source(weights, phase, stages, end_at_heads, dynamic_batch, log)
        return function(*args, source=source, **kwargs)

    return packed  # type: ignore[return-value]


def analysis(function: F) -> F:
    """The options of commands that look at the channel classes: `--after`, `--heads`, `--allow`."""
    function = click.option(
        "--allow",
        default="",
        callback=lambda _context, _option, text: tuple(filter(None, text.split(","))),
        metavar="OP,...",
        help="Inexact ops that may lose channels: op names, or inexact for all of them.",
    )(function)
    function = click.option(
        "--heads",
        type=click.Choice(["inner", "whole"]),
        default="inner",
        show_default=True,
        help="Which part of a split channel axis carries the channels.",
    )(function)
    return click.option(
        "--after",
        default="normalize",
        show_default=True,
        metavar="PIPELINE",
        help="Look at the graph after this pipeline; '' looks at the file as it is.",
    )(function)


def seed(function: F) -> F:
    """The option `--seed`."""
    return click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of random choices.",
    )(function)


def settings(
    seed: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    feeds: Path | None = None,
    *,
    detail: bool = False,
    threads: int = 1,
) -> Settings:
    """What `--seed`, `--shape` and `--inputs` say, for the library."""
    from irprune.api import Settings

    found = read_feeds(feeds)
    return Settings(
        seed=seed, shapes=shapes or {}, feeds=found, log=log, detail=detail, threads=threads
    )


def read_feeds(path: Path | None) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file by name (IrpruneError)."""
    if path is None:
        return None
    from irprune.archives import read_arrays

    return read_arrays(path)


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse, before any work, outputs that cannot be written or that would overwrite an input."""
    import tempfile

    taken = {path.resolve(): "an input" for path in inputs if path is not None}
    for path in (output for output in outputs if output is not None):
        if path.resolve() in taken:
            reason = f"is also {taken[path.resolve()]} of this command"
            raise IrpruneError(reason, file=path, mend="choose another output path")
        taken[path.resolve()] = "an output"
        if path.is_dir():
            raise IrpruneError("is a folder", file=path, mend="give the path of a file")
        try:
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as error:
            reason = f"cannot write into the folder {path.parent}: {error.strerror}"
            raise IrpruneError(reason, file=path) from error

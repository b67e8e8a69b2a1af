"""`irprune subspace`: sample the configurations that are worth exploring."""

from __future__ import annotations

from pathlib import Path

import click

from irprune.cli import common
from irprune.errors import IrpruneError


@click.group()
def subspace() -> None:
    """Make the file that says which pruned networks to explore."""


def _numbers(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise click.BadParameter(f"`{text}` is no list such as 0.3,0.5", ctx, param) from error


@subspace.command(cls=common.Command)
@click.option("-m", "--modules", type=click.IntRange(1), help="Number of modules (or layers).")
@click.option(
    "--rates",
    callback=_numbers,
    default="0.3,0.5,0.7",
    show_default=True,
    help="Fractions removed to choose from.",
)
@click.option("-n", "--count", type=click.IntRange(1), help="Number of configurations.")
@click.option(
    "--method",
    type=click.Choice(["spread", "random", "grid", "sequences"]),
    default="spread",
    show_default=True,
    help="Model sizes spread evenly, at random, all of them, or one rate per sequence of modules.",
)
@click.option(
    "--lengths", callback=_numbers, metavar="3,4,6,3", help="Modules of each sequence, in order."
)
@click.option("-o", "--output", type=common.FILE, required=True, metavar="FILE.toml|FILE.json")
@common.seed
@common.common
def sample(
    modules: int | None,
    rates: tuple[float, ...],
    count: int | None,
    method: str,
    lengths: tuple[float, ...],
    output: Path,
    seed: int,
    as_json: bool,
    debug: bool,
) -> None:
    """Write a sample of the subspace; rates are fractions removed."""
    from irprune.explore import sampling
    from irprune.frontends.specs.subspace import Subspace

    common.check_outputs([output], [])
    if method == "sequences":
        if not lengths or not all(length.is_integer() for length in lengths):
            raise IrpruneError("the method sequences needs --lengths, whole numbers")
        if modules not in (None, sum(lengths)):
            raise IrpruneError(f"--lengths add up to {sum(lengths):g} modules, not {modules}")
        modules = int(sum(lengths))
    elif lengths:
        raise IrpruneError("--lengths belongs to the method sequences")
    if modules is None:
        raise IrpruneError("--modules is missing")
    if (count is None) != (method == "grid"):
        word = "takes no" if method == "grid" else "needs a"
        raise IrpruneError(f"the method {method} {word} --count")
    number = count or 1
    if method == "grid":
        configs = sampling.grid(modules, rates)
    elif method == "random":
        configs = sampling.uniform(modules, rates, number, seed=seed)
    elif method == "sequences":
        configs = sampling.sequences([int(n) for n in lengths], rates, number, seed=seed)
    else:
        configs = sampling.spread(modules, rates, number, seed=seed)
    origin = f"irprune subspace sample: method {method}, seed {seed}"
    Subspace(tuple(configs), origin=origin).save(output)
    data = {"configurations": len(configs), "modules": modules, "method": method, "seed": seed}
    text = f"{len(configs)} configurations of {modules} modules in {output}"
    common.emit(data, text, as_json)

"""`irprune specs`: read specification files and say what they ask for."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irprune.cli import common
from irprune.errors import IrpruneError

if TYPE_CHECKING:
    from irprune.frontends.caffe.solver import Solver
    from irprune.frontends.specs.meta import Meta
    from irprune.frontends.specs.subspace import Subspace


@click.command(cls=common.Command)
@click.option("--subspace", type=common.FILE, metavar="S", help="Configurations to explore.")
@click.option("-m", "--modules", type=click.IntRange(1), help="Number of modules (or layers).")
@click.option(
    "--network",
    type=common.FILE,
    metavar="N.prototxt",
    help="The network whose modules the subspace is of.",
)
@click.option("--objective", type=common.FILE, metavar="O", help="What to minimise or maximise.")
@click.option("--solver", type=common.FILE, metavar="S.prototxt", help="Caffe's solver file.")
@click.option("--meta", type=common.FILE, metavar="M", help="Data set, trainings and machines.")
@common.common
def specs(
    subspace: Path | None,
    modules: int | None,
    network: Path | None,
    objective: Path | None,
    solver: Path | None,
    meta: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Read specification files and say what they ask for, before anything is trained by them.

    Rates in files are fractions removed. Files are TOML, JSON or text by their suffix; a subspace
    may be a pickle, which is read without unpickling.
    """
    if not any((subspace, objective, solver, meta)):
        raise IrpruneError(
            "nothing to read", mend="give --subspace, --objective, --solver or --meta"
        )
    if subspace is None and (modules or network):
        raise IrpruneError("--modules and --network go with --subspace")
    told: dict[str, tuple[dict[str, Any], str]] = {}
    if subspace is not None:
        from irprune.frontends.specs.subspace import read_subspace

        names = None if network is None else _modules(network)
        told["subspace"] = _subspace(read_subspace(subspace, modules=modules, names=names))
    if objective is not None:
        from irprune.frontends.specs.objective import read_objective

        text = str(read_objective(objective)).replace("\n", ", ")
        told["objective"] = {"text": text}, text
    if solver is not None:
        from irprune.frontends.caffe.solver import read_solver

        told["solver"] = _solver(read_solver(solver))
    if meta is not None:
        from irprune.frontends.specs.meta import read_meta

        told["meta"] = _meta(read_meta(meta))
    data = {name: facts for name, (facts, _) in told.items()}
    text = "\n".join(f"{name:<11}{line}" for name, (_, line) in told.items())
    common.emit(data, text, as_json)


def _modules(network: Path) -> list[str]:
    """The names of a network's modules, in the order in which its layers name them."""
    from irprune.frontends.caffe.network import read_network

    named = (layer.module for layer in read_network(network).layers)
    names = list(dict.fromkeys(name for name in named if name is not None))
    if not names:
        reason = "no layer names its module"
        raise IrpruneError(reason, file=network, mend='add `module: "name"`, or give --modules')
    return names


def _subspace(found: Subspace) -> tuple[dict[str, Any], str]:
    for index, first in found.repeats:
        common.log(f"configuration {index} repeats configuration {first}: it is left out")
    rates = sorted({rate for config in found.removed for rate in config})
    count = len(found.removed[0])
    facts = {
        "configurations": len(found),
        "modules": count,
        "names": found.modules,
        "rates": rates,
        "repeats": len(found.repeats),
    }
    spread = ", ".join(f"{rate:g}" for rate in rates[:8]) + (", ..." if len(rates) > 8 else "")
    return facts, f"{len(found)} configurations of {count} modules, removing {spread}"


def _solver(found: Solver) -> tuple[dict[str, Any], str]:
    for warning in found.warnings:
        common.log(warning)
    first, last = found.rate(0), found.rate(max(0, found.max_iter - 1))
    facts = {
        "type": found.type,
        "lr_policy": found.lr_policy,
        "max_iter": found.max_iter,
        "first_rate": first if isfinite(first) else None,
        "last_rate": last if isfinite(last) else None,
        "weight_decay": found.weight_decay,
    }
    rates = f"learning rate {first:g} to {last:g}"
    return facts, f"{found.type}, {found.max_iter} iterations, {rates} ({found.lr_policy})"


def _meta(found: Meta) -> tuple[dict[str, Any], str]:
    trainings = ", ".join(
        f"{name} {recipe.iterations} steps of {recipe.batch_size} at {recipe.learning_rate:g}"
        for name, recipe in (("pretrain", found.pretrain), ("finetune", found.finetune))
    )
    where = f"{found.dataset.name} in {found.dataset.directory}"
    return asdict(found), f"{where}, {found.machines} machines, {trainings}"

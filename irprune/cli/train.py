"""`irprune train`: train a network, such as a pruned one, as a recipe says."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from irprune.cli import common
from irprune.cli.format import table
from irprune.errors import IrpruneError
from irprune.frontends.source import CAFFE, Source


@click.command(cls=common.Command)
@click.argument("config", type=common.FILE)
@click.argument("model", type=common.FILE)
@click.option(
    "-o", "--output", type=common.FILE, required=True, metavar="OUT", help="Write the model here."
)
@click.option(
    "--teacher",
    type=common.FILE,
    metavar="T.onnx",
    help="Distil from this network, such as the original of a pruned MODEL.",
)
@click.option(
    "--folder",
    type=common.FILE,
    metavar="FOLDER",
    help="Keep log and checkpoint here; by default in OUT.training.",
)
@click.option("--data", type=common.FILE, help="Path of the data set, instead of CONFIG's.")
@click.option("--seed", type=common.SEED, help="Seed, instead of CONFIG's.")
@common.source
@common.common
def train(
    config: Path,
    model: Path,
    output: Path,
    teacher: Path | None,
    folder: Path | None,
    data: Path | None,
    seed: int | None,
    source: Source,
    as_json: bool,
    debug: bool,
) -> None:
    """Train MODEL as CONFIG.toml says, and write it with its new weights.

    CONFIG has the tables [data], [train] and [machine]. The same command goes on where a killed
    one stopped, from what FOLDER keeps; remove FOLDER when you are done. A MODEL that is named as
    file.py:factory is executed.
    """
    from irprune.explore.settings import read_settings
    from irprune.explore.train import Config
    from irprune.explore.train import train as run
    from irprune.launch import leads

    asked = read_settings(Config, config)
    if asked.caffemodel is not None and source.weights is None:
        if model.suffix == CAFFE:
            source = replace(source, weights=config.parent / asked.caffemodel)
            common.log(f"train: the weights are those of {source.weights}")
        else:
            common.log(f"train: {asked.caffemodel} is not read: {model} has its own weights")
    common.check_outputs([output], [config, model, teacher, source.weights])
    if teacher is not None and teacher.suffix == CAFFE:
        command = f"irprune run normalize {teacher} --weights X.caffemodel -o {teacher.stem}.onnx"
        mend = f"write it with them: {command}"
        raise IrpruneError("has no weights to teach by", file=teacher, mend=mend)
    if folder is not None and folder.resolve() == output.resolve():
        raise IrpruneError("is also the folder", file=output, mend="choose another output path")
    lead = leads(asked.machine)
    done = run(
        config,
        source.read(model, asked.train.seed if seed is None else seed),
        output.with_name(f"{output.name}.training") if folder is None else folder,
        teacher=None if teacher is None else Source().read(teacher),
        seed=seed,
        data=data,
        log=common.log if lead else lambda message: None,
    )
    if not lead:
        return
    done.model.save(output)
    told = {"teacher": done.teacher, "before": done.before, "after": done.after}
    scores = {name: score for name, score in told.items() if score is not None}
    rows = [[name, f"{s.accuracy:.2%}", f"{s.loss:.4f}"] for name, s in scores.items()]
    facts = {name: asdict(score) for name, score in scores.items()} | {"epochs": done.epochs}
    common.emit(facts, table([["", "accuracy", "loss"], *rows]), as_json)

"""One training as a TOML file says: fine-tuning of a pruned network, or learning from scratch."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

from irprune import api
from irprune.errors import IrpruneError
from irprune.explore.folders import (
    CHECKPOINT,
    Identity,
    alone,
    claim,
    network_of,
    tidy,
    writable,
)
from irprune.explore.settings import Settings, asked_for, open_trainer, placed
from irprune.launch import leads
from irprune.model import Model
from irprune.training import Score, Trainer


@dataclass(frozen=True)
class Config(Settings):
    """What a training is told."""

    weights: Literal["given", "fresh"] = "given"
    """`fresh`: drawn anew by the seed, as torch initialises its layers, so that the network
    learns from scratch."""
    caffemodel: str | None = None
    """The weights of a prototxt, relative to the configuration; its fillers draw them otherwise.
    For the command: `train` is given a network with its weights."""

    def starting(self, caffemodel: str) -> Self:
        return self if self.caffemodel else replace(self, caffemodel=caffemodel)


@dataclass(frozen=True)
class Trained:
    """A network after its training, and what it and its teacher do on the test split."""

    model: Model
    before: Score
    after: Score
    epochs: int
    teacher: Score | None = None


def train(
    config: Config | Path | str,
    model: Model,
    folder: Path | str,
    *,
    teacher: Model | None = None,
    home: Path | str | None = None,
    seed: int | None = None,
    data: Path | str | None = None,
    trainer: Trainer | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Trained:
    """Train a normalised copy of a model, or go on with that; `folder` keeps logs and checkpoints.

    Args:
        config: a configuration, or the path of its file.
        model: a classifier with one input and a dynamic batch.
        folder: what a training that was killed goes on from; for this training alone.
        teacher: the network that is distilled from, such as the original of a pruned one; asked
            for just where the configuration says `train.distillation`.
        home: the folder that paths in the configuration are relative to; by default that of its
            file, or the current one.
        seed: instead of the configuration's.
        data: path of the data set, instead of the configuration's.
        trainer: who trains; by default torch, on the configuration's data and machine.
        log: takes one line of progress.

    Raises:
        IrpruneError: configuration, data, model, teacher or folder do not fit; torch is missing.
        CheckFailed: the loss is no number any more.
    """
    given, folder = config, Path(folder)
    config, home = asked_for(Config, given, home, seed=seed, data=data)
    with ExitStack() as held:
        held.enter_context(placed(Config, given))
        _check_teacher(config, teacher)
        if trainer is None:
            trainer = open_trainer(config, home, log)
        held.enter_context(writable(folder))
        pupil = api.run("normalize", model, verify=False).model
        if leads(config.machine):
            held.enter_context(alone(folder))
            identity = _identity(config, pupil, teacher, trainer)
            unlike = "seed a factory that draws weights, or name an ONNX file"
            claim(folder, identity, unlike=unlike, log=log)
            tidy(folder)
        if config.weights == "fresh":
            trainer.initialise(pupil, config.train.seed)
        taught = None if teacher is None else trainer.score(teacher)
        before = trainer.score(pupil)
        log(f"train: accuracy {before.accuracy:.2%}, loss {before.loss:.4f} before training")
        saved = _saved(folder)
        fitted = trainer.fit(pupil, folder, teacher=teacher)
        if saved is not None and saved == _saved(folder):
            log(f"train: {folder} holds the end of this training already; no step was left to do")
        return Trained(pupil, before, fitted.score, fitted.epochs, taught)


def _check_teacher(config: Config, teacher: Model | None) -> None:
    distilled = config.train.distillation.weight > 0
    if distilled and teacher is None:
        mend = "name a teacher, such as the network before its pruning, or set weight = 0"
        raise IrpruneError("nobody teaches", node="train.distillation", mend=mend)
    if teacher is not None and not distilled:
        mend = "set a weight above 0, or leave the teacher out"
        raise IrpruneError("the teacher has no weight", node="train.distillation", mend=mend)


def _saved(folder: Path) -> int | None:
    """Return when the checkpoint was written, if there is one."""
    path = folder / CHECKPOINT
    return path.stat().st_mtime_ns if path.is_file() else None


def _identity(config: Config, model: Model, teacher: Model | None, trainer: Trainer) -> Identity:
    network = network_of(model, weights=config.weights == "given")
    told = asdict(config) | {"network": network, "examples": trainer.fingerprint()}
    told["teacher"] = None if teacher is None else network_of(teacher)
    told["machine"] = config.machine.identity()
    del told["caffemodel"]  # the weights in it count
    made: Identity = json.loads(json.dumps(told))
    return made

"""Iterative pruning with rewinding: Algorithm 1 of Zhao et al. (Iterative Activation-based
Structured Pruning), round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from irprune.errors import IrpruneError
from irprune.explore.iterate.config import Config, read_config
from irprune.explore.settings import asked_for, open_trainer, placed
from irprune.frontends.source import Source

if TYPE_CHECKING:
    from irprune.explore.iterate.records import Record
    from irprune.model import Model
    from irprune.passbase import Context
    from irprune.training import Trainer

__all__ = ["iterate", "read_config"]


def iterate(
    config: Config | Path | str,
    folder: Path | str,
    *,
    home: Path | str | None = None,
    seed: int | None = None,
    data: Path | str | None = None,
    base: Path | str | None = None,
    trainer: Trainer | None = None,
    model: Model | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> list[Record]:
    """Run, or go on with, an iterative pruning; write models, records and report into `folder`.

    Args:
        config: a configuration, or the path of its file.
        folder: where everything is written; a run that was killed goes on from what is there.
        home: the folder that paths in the configuration are relative to; by default that of its
            file, or the current one.
        seed: instead of the configuration's.
        data: path of the data set, instead of the configuration's.
        base: the folder of another run of the same original network, whose training is taken over.
        trainer: who trains; by default torch, on the configuration's data and machine.
        model: the network; by default the configuration's source.
        log: takes one line of progress.

    Returns:
        One record per round, the original network's first.

    Raises:
        IrpruneError: configuration, data, model or folder do not fit; torch is missing.
        CheckFailed: a compaction is not proved, or the loss is no number any more.
    """
    from irprune.explore.iterate.run import Iteration

    given = config
    config, home = asked_for(Config, given, home, seed=seed, data=data)
    with placed(Config, given), _context(config, log) as context:
        run = Iteration(
            config,
            Path(folder),
            _model(config, home, log) if model is None else model,
            open_trainer(config, home, log) if trainer is None else trainer,
            context,
            log,
            None if base is None else Path(base),
        )
        return run.run()


def _model(config: Config, home: Path, log: Callable[[str], None]) -> Model:
    named = config.model
    weights = None if named.caffemodel is None else home / named.caffemodel
    source = Source(weights, dynamic_batch=named.is_caffe, warn=log)
    return source.read(home / named.source, config.train.seed)


@contextmanager
def _context(config: Config, log: Callable[[str], None]) -> Iterator[Context]:
    """What analyses and measurements run in."""
    from irprune.passbase import Context

    if find_spec("onnxruntime") is None:
        mend = "install the extra: pip install 'irprune[cpu]'"
        raise IrpruneError("iterative pruning measures with onnxruntime", mend=mend)
    from irprune.backends.ort.runner import OrtRunner

    with OrtRunner() as runner:
        yield Context(seed=config.train.seed, runner=lambda: runner, log=log)

"""The rounds: prune, rewind, retrain, record; each step's result is a file, written whole.

A run folder holds ``run.json`` (the configuration), ``round-000`` (the original network) and one
folder per round: ``step.json`` (the plan over the previous round's model), ``plan.json`` (over the
original), a checkpoint while it trains, ``model.onnx``, and at last ``record.json``. What is there
is not done again, so a run goes on after a kill at any point; every step is deterministic, so it
comes to the same end.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from irprune import api
from irprune.atomic import write_text
from irprune.channels import ChannelClasses, Channels
from irprune.cost import Cost
from irprune.errors import CheckFailed, IrpruneError
from irprune.explore.iterate import measure
from irprune.explore.iterate.config import Config
from irprune.fingerprint import structure_hash
from irprune.groups import Group, Groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import compact_graph
from irprune.passes.rounds import at_most, kept_classes, kind_of, least_important, next_threshold
from irprune.passes.scores.activity import Activity, DataCriterion
from irprune.passes.scores.calibration import Samples
from irprune.passes.scores.importance import Importance
from irprune.plan import Plan
from irprune.protocols import BenchSettings
from irprune.shapes import infer
from irprune.training import Score, Trainer

Record = dict[str, Any]
_MOST_BATCH = 32


@dataclass(frozen=True)
class Iteration:
    """A run in a folder."""

    config: Config
    folder: Path
    model: Model
    """The network as it is given; read once, when round 0 starts."""
    trainer: Trainer
    context: Context
    log: Callable[[str], None]
    base: Path | None = None
    """The folder of another run with the same original network, whose training is taken over."""

    def run(self) -> list[Record]:
        """Do what is left to do; return the records of all rounds, the original's first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            self._claim()
            return self._rounds()

    def _rounds(self) -> list[Record]:
        records = [self._original()]
        objective = self.config.objective
        for number in range(1, objective.rounds + 1):
            reason = self._met(records)
            if reason is None:
                record = self._round(number, records)
                reason = None if record is not None else "no filter is left to remove"
                if record is not None:
                    records.append(record)
            if reason is not None:
                self.log(f"iterate: stopped after round {number - 1}: {reason}")
                break
        return records

    def _claim(self) -> None:
        """Note what the folder is for (IrpruneError: it is for something else)."""
        path, mine = self.folder / "run.json", json.loads(json.dumps(self.config.identity()))
        if not path.is_file():
            write_text(path, json.dumps(mine, indent=1) + "\n")
        elif (found := _read(path)) != mine:
            changed = [key for key in mine if found.get(key) != mine[key]]
            reason = f"the folder holds a run of another configuration: {', '.join(changed)} differ"
            raise IrpruneError(reason, file=path, mend="choose another folder, or remove this one")

    def _met(self, records: list[Record]) -> str | None:
        """Return which objective the last round meets."""
        wanted, first, last = self.config.objective, records[0], records[-1]
        loss = first["accuracy"] - last["accuracy"]
        if wanted.accuracy_loss is not None and loss > wanted.accuracy_loss:
            return f"accuracy is {loss:.4f} below the original's"
        reached = last[f"compression_{wanted.counting}"]
        if wanted.compression is not None and reached >= wanted.compression:
            return f"compression is {reached:.2f}"
        return None

    # Round 0

    def _original(self) -> Record:
        folder = self._at(0)
        if (folder / "record.json").is_file():
            return _read(folder / "record.json")
        config, k = self.config, self.config.rewind.epoch
        if self.base is not None:
            self._take_over(self.base)
            return _read(folder / "record.json")
        folder.mkdir(exist_ok=True)
        if not (folder / "start.onnx").is_file():
            start = api.run("normalize", self.model, verify=False).model
            start.base = start.plan = None
            if config.model.weights == "fresh":
                self.trainer.initialise(start, config.train.seed)
            start.save(folder / "start.onnx")
        model = api.load(folder / "start.onnx")
        if config.pretrained:
            score = self.trainer.score(model)
        else:
            self.log(f"iterate: training the original for {config.train.epochs} epochs")
            score = self.trainer.fit(model, folder, keep=(k,)).score
        infer(model.ir)
        model.save(folder / "model.onnx")
        Plan.empty().save(folder / "plan.json")
        chosen = {"threshold": 0.0, "removed": 0}
        return self._record(0, model, Plan.empty(), chosen, score)

    def _take_over(self, base: Path) -> None:
        """Copy the original network of another run (IrpruneError: it is another network)."""
        source = base / "round-000"
        key = source / "base.txt"
        if not key.is_file() or key.read_text() != self.config.base_identity():
            reason = "its original network is not there yet, or was made by another configuration"
            raise IrpruneError(reason, file=base, mend="finish that run, or leave --base out")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            copy = Path(folder) / "copy"
            shutil.copytree(source, copy)
            shutil.rmtree(self._at(0), ignore_errors=True)
            copy.rename(self._at(0))

    @cached_property
    def _base(self) -> tuple[Model, Channels]:
        """The trained original and its channels: what all plans refer to."""
        model = api.load(self._at(0) / "model.onnx")
        infer(model.ir)
        return model, self.context.get(ChannelClasses(), model)

    # Rounds

    def _round(self, number: int, records: list[Record]) -> Record | None:
        """Do a round; None where it can remove nothing, now or later."""
        folder = self._at(number)
        if (folder / "record.json").is_file():
            return _read(folder / "record.json")
        folder.mkdir(exist_ok=True)
        if not (folder / "plan.json").is_file() and not self._select(number, records):
            return None
        chosen, plan = _read(folder / "selection.json"), Plan.load(folder / "plan.json")
        rewinds = self.config.rewind.what == "weights"
        if rewinds and not chosen["removed"]:
            # The same weights from epoch k, the same order of examples: the same network.
            shutil.copyfile(self._at(number - 1) / "model.onnx", folder / "model.onnx")
            previous = records[-1]
            same = {"round": number, "threshold": chosen["threshold"], "removed": 0}
            return self._write({**previous, **same}, folder)
        model = self._rewound(number, plan)
        self.log(
            f"iterate: round {number}: {chosen['removed']} filters less, "
            f"training from epoch {self.config.rewind.epoch}"
        )
        distilled = self.config.train.distillation.weight > 0
        teacher = api.load(self._at(0) / "model.onnx") if distilled else None
        k = self.config.rewind.epoch
        score = self.trainer.fit(model, folder, first=k, teacher=teacher).score
        model.save(folder / "model.onnx")
        return self._record(number, model, plan, chosen, score)

    def _select(self, number: int, records: list[Record]) -> bool:
        """Write what a round removes; return whether any round from now on can remove more."""
        how = self.config.prune
        previous = api.load(self._at(number - 1) / "model.onnx")
        infer(previous.ir)
        channels = self.context.get(ChannelClasses(), previous)
        groups = [g for g in self.context.get(Groups(), previous) if not self._skipped(g)]
        ranked = self._scored(previous, channels, groups)
        threshold = 0.0
        if how.method == "aiap":
            threshold = next_threshold(
                records[-1]["threshold"],
                number,
                [record["threshold_params"] for record in records],
                step=how.step,
                hold=how.hold,
                enough=how.enough,
            )
            keep = kept_classes(channels, ranked, at_most(threshold, how.least))
        else:
            shares = {"conv": how.conv, "dense": how.dense}
            share = {kind: list_[min(number, len(list_)) - 1] for kind, list_ in shares.items()}

            def rule(group: Group, scores: Any) -> int:
                return least_important(share[kind_of(group)], how.least)(group, scores)

            keep = kept_classes(channels, ranked, rule)
        removed = int((~keep).sum())
        exhausted = all(len(scores) <= how.least * group.rows for group, scores in ranked)
        if exhausted or (not removed and how.method != "aiap"):
            return False
        step = channels.plan(keep)
        done = Plan.load(self._at(number - 1) / "plan.json")
        base, _ = self._base
        plan = replace(
            done.then(step),
            pipeline=f"iterate {how.method}, round {number}",
            model_name=base.provenance.name,
            base_structure=structure_hash(base.ir),
        )
        folder = self._at(number)
        step.save(folder / "step.json")
        chosen = {"threshold": threshold, "removed": removed}
        write_text(folder / "selection.json", json.dumps(chosen) + "\n")
        plan.save(folder / "plan.json")
        return True

    def _skipped(self, group: Group) -> bool:
        from fnmatch import fnmatchcase

        return any(fnmatchcase(n, p) for n in group.names for p in self.config.prune.skip)

    def _scored(
        self, model: Model, channels: Channels, groups: list[Group]
    ) -> list[tuple[Group, Any]]:
        """Return the groups that can be scored, with the scores of their classes."""
        how = self.config.prune
        importance: Importance | Activity
        if how.method == "ilp":
            importance = Importance(channels, "l1", "producers", "mean", 0)
        else:
            x, y = self.trainer.sample(model, how.samples, self.config.train.seed)
            name = model.ir.graph.inputs[0].name or ""
            criterion: DataCriterion = (
                "mean-activation" if how.activation == "mean" else "sum-activation"
            )
            samples = Samples({name: x}, y, _MOST_BATCH)
            importance = Activity(model, channels, groups, criterion, samples, self.context)
        found = [(group, importance.of(group)) for group in groups]
        return [(group, scores) for group, scores in found if scores is not None]

    def _rewound(self, number: int, plan: Plan) -> Model:
        """Return the pruned network with the weights that retraining starts from."""
        k = self.config.rewind.epoch
        if self.config.rewind.what == "weights":
            source, cut = api.load(self._at(0) / f"epoch-{k}.onnx"), plan
        else:
            source = api.load(self._at(number - 1) / "model.onnx")
            cut = Plan.load(self._at(number) / "step.json")
        infer(source.ir)
        pruned = source.clone()
        compact_graph(pruned.ir.graph, cut)
        if self.config.prune.verify:
            proof = api.verify(source, pruned, cut, settings=self._settings())
            if proof.verdict != "proved":
                raise CheckFailed(f"round {number}: the compaction is not proved: {proof}")
        return pruned

    def _settings(self) -> api.Settings:
        return api.Settings(seed=self.config.train.seed)

    # Records

    def _record(
        self, number: int, model: Model, plan: Plan, chosen: Record, score: Score
    ) -> Record:
        base, channels = self._base
        original = self.context.get(Cost(), base).full()
        infer(model.ir)
        costs = self.context.get(Cost(), model).full()
        kind = measure.threshold_kind(channels)
        whole = measure.own_parameters(channels, Plan.empty())
        own = measure.own_parameters(channels, plan)
        record = {
            "round": number,
            "accuracy": score.accuracy,
            "loss": score.loss,
            **chosen,
            "params": costs.params,
            "params_paper": own,
            "compression_physical": original.params / costs.params,
            "compression_paper": whole / own,
            "macs": costs.macs,
            "weight_bytes": costs.weight_bytes,
            "threshold_kind": kind,
            "threshold_params": measure.own_parameters(channels, plan, kind),
            "stability": measure.stability(base, model, plan),
            "widths": measure.widths(channels, plan),
            "latency_s": self._latency(number),
        }
        return self._write(record, self._at(number))

    def _write(self, record: Record, folder: Path) -> Record:
        """Write the record, by which a round is done, and drop what only a resumed one needs."""
        if record["round"] == 0:
            write_text(folder / "base.txt", self.config.base_identity())
        write_text(folder / "record.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        return record

    def _latency(self, number: int) -> float | None:
        if not self.config.latency or self.context.runner is None:
            return None
        timing = BenchSettings(rounds=12, processes=2)
        row = api.bench([self._at(number) / "model.onnx"], timing=timing)["models"][0]
        latency: float | None = row["median_s"]
        return latency

    def _at(self, number: int) -> Path:
        return self.folder / f"round-{number:03d}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process (IrpruneError: another one holds it)."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            reason = "another process is at work in this folder"
            raise IrpruneError(reason, file=folder, mend="wait for it, or end it") from error
        yield


def _read(path: Path) -> Record:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise IrpruneError(f"cannot read: {error}", file=path, mend="remove it") from error
    if not isinstance(found, dict):
        raise IrpruneError("is no JSON object", file=path, mend="remove it")
    return found

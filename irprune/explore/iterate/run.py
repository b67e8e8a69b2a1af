"""The rounds: prune, rewind, retrain, record; each step's result is a file, written whole.

A run folder holds ``run.json`` (what the run is of), ``round-000`` (the original network) and one
folder per round: ``step.json`` (the plan over the previous round's model), ``plan.json`` (over the
original), a checkpoint while it trains, ``model.onnx``, and at last ``record.json``. What is there
is not done again, so a run goes on after a kill at any point; every step is deterministic, so it
comes to the same end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from irprune import api
from irprune.analyses import ChannelClasses
from irprune.atomic import write_text
from irprune.channels import Channels
from irprune.cost import Cost
from irprune.errors import CheckFailed, IrpruneError
from irprune.explore.folders import CHECKPOINT, Identity, alone, claim, tidy, writable
from irprune.explore.iterate import measure
from irprune.explore.iterate.base import check_base, take_over
from irprune.explore.iterate.config import Config
from irprune.explore.iterate.files import load_model, load_plan
from irprune.explore.iterate.identity import identity_of
from irprune.explore.iterate.records import Record, Selection, read_record, read_selection
from irprune.explore.iterate.report import write_report
from irprune.explore.iterate.selection import Scoring
from irprune.fingerprint import structure_hash
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import compact_graph
from irprune.passes.rounds import next_threshold
from irprune.passes.scores.calibration import fixed_batch
from irprune.plan import Plan
from irprune.proof.drawn import draw_initializers
from irprune.protocols import BenchSettings
from irprune.shapes import infer
from irprune.training import Score, Trainer

_ROUNDING = 1e-9
"""By how much the difference of two accuracies may miss what it is: 0.98 - 0.97 exceeds 0.01."""


@dataclass(frozen=True)
class Iteration:
    """A run in a folder."""

    config: Config
    folder: Path
    model: Model
    """The network as it is given."""
    trainer: Trainer
    context: Context
    log: Callable[[str], None]
    base: Path | None = None
    """The folder of another run with the same original network, whose training is taken over."""

    def run(self) -> list[Record]:
        """Do what is left to do; return the records of all rounds, the original's first."""
        with writable(self.folder), alone(self.folder):
            if self.base is not None and not self._is_done(0):
                check_base(self.base, self._identity)
            unlike = "seed a factory that draws weights, or name round-000/start.onnx"
            claim(self.folder, self._identity, unlike=unlike, log=self.log)
            tidy(self.folder)
            done = len(list(self.folder.glob("round-*/record.json")))
            records = self._rounds()
            if len(records) <= done:
                self.log(f"iterate: {self.folder} holds all rounds already; nothing was left to do")
            self._report(records)
            return records

    @cached_property
    def _given(self) -> Model:
        """The network, normalised."""
        return api.run("normalize", self.model, verify=False).model

    @cached_property
    def _identity(self) -> Identity:
        return identity_of(self.config, self._given, self.trainer)

    @cached_property
    def _scoring(self) -> Scoring:
        config = self.config
        return Scoring(config.prune, self.trainer, self.context, config.train.seed)

    def _rounds(self) -> list[Record]:
        records = [self._original()]
        for number in range(1, self.config.objective.rounds + 1):
            found = self._met(records) or self._round(number, records)
            if isinstance(found, str):
                self.log(f"iterate: stopped after round {number - 1}: {found}")
                break
            records.append(found)
        return records

    def _met(self, records: list[Record]) -> str | None:
        """Return which objective the last round meets."""
        wanted, first, last = self.config.objective, records[0], records[-1]
        loss = first["accuracy"] - last["accuracy"]
        if wanted.accuracy_loss is not None and loss > wanted.accuracy_loss + _ROUNDING:
            return f"accuracy is {loss:.4f} below the original's"
        counted = {"paper": last["compression_paper"], "physical": last["compression_physical"]}
        reached = counted[wanted.counting]
        if wanted.compression is not None and reached >= wanted.compression:
            return f"compression is {reached:.2f}"
        return None

    # Round 0

    def _original(self) -> Record:
        folder = self._at(0)
        if self._is_done(0):
            return read_record(folder / "record.json")
        if self.base is not None:
            take_over(self.base, folder)
            return read_record(folder / "record.json")
        config, k = self.config, self.config.rewind.epoch
        folder.mkdir(exist_ok=True)
        if not (folder / "start.onnx").is_file():
            start = self._given.clone()
            if config.model.weights == "fresh":
                self.trainer.initialise(start, config.train.seed)
            start.save(folder / "start.onnx")
        reason = self._scoring.ranked(self._start()).why_none(1)
        if reason is not None:  # better said now than after the training
            mend = "raise prune.conv and prune.dense, or lower prune.least"
            path = self.model.provenance.path
            raise IrpruneError(reason, file=path, node="prune", mend=mend)
        model = self._start()
        if config.pretrained:
            score = self.trainer.score(model)
        else:
            self.log(f"iterate: training the original for {config.train.epochs} epochs")
            score = self.trainer.fit(model, folder, keep=(k,)).score
        infer(model.ir)
        model.save(folder / "model.onnx")
        Plan.empty().save(folder / "plan.json")
        chosen = Selection(threshold=0.0, removed=0)
        return self._done([self._record(0, model, Plan.empty(), chosen, score)])

    def _start(self) -> Model:
        """Return the network before its training; errors name the file that it came from."""
        start = load_model(self._at(0) / "start.onnx")
        start.provenance = replace(start.provenance, path=self.model.provenance.path)
        return start

    @cached_property
    def _base(self) -> tuple[Model, Channels]:
        """The trained original and its channels: what all plans refer to."""
        model = load_model(self._at(0) / "model.onnx")
        infer(model.ir)
        return model, self.context.get(ChannelClasses(), model)

    # Rounds

    def _round(self, number: int, records: list[Record]) -> Record | str:
        """Do a round; return its record, or why it and all later ones can remove nothing."""
        folder = self._at(number)
        if self._is_done(number):
            return read_record(folder / "record.json")
        folder.mkdir(exist_ok=True)
        if not (folder / "plan.json").is_file():
            reason = self._select(number, records)
            if reason is not None:
                return reason
        chosen, plan = read_selection(folder / "selection.json"), load_plan(folder / "plan.json")
        if self.config.rewind.what == "weights" and not chosen["removed"] and number > 1:
            # The same weights from epoch k, the same order of examples: the same network. But
            # the original came there with its optimiser, and has no teacher.
            load_model(self._at(number - 1) / "model.onnx").save(folder / "model.onnx")
            same = Record(**{**records[-1], **chosen, "round": number})
            return self._done([*records, same])
        model = self._rewound(number, plan)
        self.log(
            f"iterate: round {number}: {chosen['removed']} channels less, "
            f"training from epoch {self.config.rewind.epoch}"
        )
        distilled = self.config.train.distillation.weight > 0
        teacher = load_model(self._at(0) / "model.onnx") if distilled else None
        k = self.config.rewind.epoch
        score = self.trainer.fit(model, folder, first=k, teacher=teacher).score
        model.save(folder / "model.onnx")
        return self._done([*records, self._record(number, model, plan, chosen, score)])

    def _select(self, number: int, records: list[Record]) -> str | None:
        """Write what a round removes; or return why no round from now on can remove more."""
        how, folder = self.config.prune, self._at(number)
        layers = self._scoring.ranked(load_model(self._at(number - 1) / "model.onnx"))
        reason = layers.why_none(number)
        if reason is not None:
            return reason
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
        keep = layers.kept(number, threshold)
        step = layers.channels.plan(keep)
        done = load_plan(self._at(number - 1) / "plan.json")
        base, _ = self._base
        plan = replace(
            done.then(step),
            pipeline=f"iterate {how.method}, round {number}",
            model_name=base.provenance.name,
            base_structure=structure_hash(base.ir),
        )
        step.save(folder / "step.json")
        chosen = Selection(threshold=threshold, removed=int((~keep).sum()))
        write_text(folder / "selection.json", json.dumps(chosen) + "\n")
        plan.save(folder / "plan.json")
        return None

    def _rewound(self, number: int, plan: Plan) -> Model:
        """Return the pruned network with the weights that retraining starts from."""
        k = self.config.rewind.epoch
        if self.config.rewind.what == "weights":
            source, cut = load_model(self._at(0) / f"epoch-{k}.onnx"), plan
        else:
            source = load_model(self._at(number - 1) / "model.onnx")
            cut = load_plan(self._at(number) / "step.json")
        infer(source.ir)
        pruned = _compacted(source, cut)
        if self.config.prune.verify:
            self._prove(number, source, pruned, cut)
        return pruned

    def _prove(self, number: int, source: Model, pruned: Model, cut: Plan) -> None:
        """Prove a compaction; CheckFailed where that fails.

        Training can leave layers without effect, about which weights prove nothing: the same cut is
        then proved with weights drawn anew as well.
        """
        settings = api.Settings(seed=self.config.train.seed)
        proof = api.verify(source, pruned, cut, settings=settings)
        if proof.verdict == "inconclusive":
            self.log(f"iterate: round {number}: proved with weights drawn anew: {proof.reason}")
            other = source.clone()
            draw_initializers(other.ir, settings.seed)
            proof = api.verify(other, _compacted(other, cut), cut, settings=settings)
        if proof.verdict != "proved":
            raise CheckFailed(
                f"round {number}: the compaction is not proved: {proof}",
                file=self._at(number),
                mend="prune.verify = false goes on without a proof",
            )

    # Records

    def _record(
        self, number: int, model: Model, plan: Plan, chosen: Selection, score: Score
    ) -> Record:
        base, channels = self._base
        original = self.context.get(Cost(), base).full()
        infer(model.ir)
        costs = self.context.get(Cost(), model).full()
        kind = measure.threshold_kind(channels)
        whole = measure.own_parameters(channels, Plan.empty())
        own = measure.own_parameters(channels, plan)
        return Record(
            round=number,
            accuracy=score.accuracy,
            loss=score.loss,
            threshold=chosen["threshold"],
            removed=chosen["removed"],
            params=costs.params,
            params_paper=own,
            compression_physical=original.params / costs.params,
            compression_paper=whole / own,
            macs=costs.macs,
            weight_bytes=costs.weight_bytes,
            threshold_kind=kind,
            threshold_params=measure.own_parameters(channels, plan, kind),
            stability=measure.stability(base, model, plan),
            widths=measure.widths(channels, plan),
            latency_s=self._latency(number),
        )

    def _done(self, records: list[Record]) -> Record:
        """Write the last record, by which its round is done, and a report of all; return it."""
        record = records[-1]
        folder = self._at(record["round"])
        write_text(folder / "record.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)
        self._report(records)
        return record

    def _report(self, records: list[Record]) -> None:
        write_report(self.config, records, self.folder, fixed_batch(self._given.ir.graph))

    def _latency(self, number: int) -> float | None:
        if not self.config.latency or self.context.runner is None:
            return None
        timing = BenchSettings(rounds=12, processes=2)
        row = api.bench([self._at(number) / "model.onnx"], timing=timing)["models"][0]
        if row["error"] is not None:
            self.log(f"iterate: round {number}: no latency: {row['error']}")
        latency: float | None = row["median_s"]
        return latency

    def _is_done(self, number: int) -> bool:
        return (self._at(number) / "record.json").is_file()

    def _at(self, number: int) -> Path:
        return self.folder / f"round-{number:03d}"


def _compacted(model: Model, plan: Plan) -> Model:
    small = model.clone()
    compact_graph(small.ir.graph, plan)
    return small

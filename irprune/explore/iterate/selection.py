"""Which filters a round removes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irprune.analyses import ChannelClasses, Groups
from irprune.channels import Channels
from irprune.errors import IrpruneError
from irprune.explore.iterate.config import Pruning
from irprune.groups import Group
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.choice.names import Names
from irprune.passes.rounds import at_most, kept_classes, kind_of, least_important
from irprune.passes.scores.activity import Activity, DataCriterion
from irprune.passes.scores.calibration import Samples, fixed_batch
from irprune.passes.scores.importance import Importance
from irprune.passes.scores.sites import measured_at
from irprune.plan import Mask
from irprune.shapes import infer
from irprune.training import Trainer

_MOST_BATCH = 32
Scored = list[tuple[Group, Any]]
"""Groups with the scores of their classes, shape ``(size,)``."""


@dataclass(frozen=True)
class Ranked:
    """The layers of a network that can be pruned, with the scores of their filters."""

    how: Pruning
    channels: Channels
    groups: Scored

    def kept(self, number: int, threshold: float) -> Mask:
        """Return the classes that stay in a round, shape ``(count,)``."""
        if self.how.method == "aiap":
            rule = at_most(threshold, self.how.least)
            return kept_classes(self.channels, self.groups, rule)
        shares = {"conv": self.how.conv, "dense": self.how.dense}
        share = {kind: list_[min(number, len(list_)) - 1] for kind, list_ in shares.items()}

        def count(group: Group, scores: Any) -> int:
            return least_important(share[kind_of(group)], self.how.least)(group, scores)

        return kept_classes(self.channels, self.groups, count)

    def why_none(self, number: int) -> str | None:
        """Return why neither a round nor any after it can remove a filter, or None."""
        least = self.how.least
        if all(len(scores) <= least * group.rows for group, scores in self.groups):
            return "no filter is left to remove"
        if self.how.method == "aiap":
            return None
        last = max(number, len(self.how.conv), len(self.how.dense))
        if all(self.kept(later, 0.0).all() for later in range(number, last + 1)):
            return "the share to remove rounds to no filter in any layer"
        return None


@dataclass(frozen=True)
class Scoring:
    """How the filters of networks are scored."""

    how: Pruning
    trainer: Trainer
    context: Context
    seed: int

    def ranked(self, model: Model) -> Ranked:
        """Score the filters of a network, whose shapes are inferred here.

        Raises:
            IrpruneError: no layer can be pruned, or there are too few examples.
        """
        infer(model.ir)
        channels = self.context.get(ChannelClasses(), model)
        names = Names(skip=self.how.skip)
        names.check(channels)
        groups = [group for group in self.context.get(Groups(), model) if names.match(group)]
        if self.how.method == "ilp":
            found = _by_weights(channels, groups)
        else:
            found = self._by_activity(model, channels, groups)
        if not found:
            mend = "`irprune inspect` says what keeps its channels; prune.skip may name less"
            raise IrpruneError("no layer can be pruned", file=model.provenance.path, mend=mend)
        return Ranked(self.how, channels, found)

    def _by_activity(self, model: Model, channels: Channels, groups: list[Group]) -> Scored:
        x, y = self.trainer.sample(model, self.how.samples, self.seed)
        samples = Samples({model.ir.graph.inputs[0].name or "": x}, y, self._batch(model))
        seen = [group for group in groups if measured_at(channels, group)]
        if not seen:
            return []
        criterion: DataCriterion = (
            "mean-activation" if self.how.activation == "mean" else "sum-activation"
        )
        activity = Activity(model, channels, seen, criterion, samples, self.context)
        return [(group, activity.of(group)) for group in seen]

    def _batch(self, model: Model) -> int:
        """Return how many samples are measured at once (IrpruneError: the model fixes another)."""
        fixed = fixed_batch(model.ir.graph)
        if fixed is None:
            return _MOST_BATCH
        if self.how.samples % fixed:
            reason = f"{self.how.samples} is no multiple of {fixed}, the batch that the model fixes"
            mend = f"set it to {-(-self.how.samples // fixed) * fixed}"
            raise IrpruneError(reason, file=model.provenance.path, node="prune.samples", mend=mend)
        return fixed


def _by_weights(channels: Channels, groups: list[Group]) -> Scored:
    norms = Importance(channels, "l1", "producers", "mean", 0)
    found = [(group, norms.of(group)) for group in groups]
    return [(group, scores) for group, scores in found if scores is not None]

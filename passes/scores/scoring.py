"""Which scores a criterion means: from the weights, or from what the model does on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from irprune.channels import Channels
from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.scores.activity import (
    DATA_CRITERIA,
    Activations,
    Activity,
    DataCriterion,
    Sensitivities,
)
from irprune.passes.scores.calibration import read_samples
from irprune.passes.scores.importance import Aggregate, Criterion, Importance, Members
from irprune.passes.scores.reconstruction import Reconstruction

_WITHOUT_WEIGHTS = ("bn-scale", "random", *get_args(Activations), *get_args(Sensitivities))


@dataclass(frozen=True)
class Scoring:
    """A criterion and what belongs to it; `data` is a file of samples."""

    criterion: Criterion | DataCriterion
    data: str | None
    members: Members | None
    """None: the criterion looks at no weights, or at those of the consumers."""
    aggregate: Aggregate

    def __post_init__(self) -> None:
        if (self.criterion in DATA_CRITERIA) == (self.data is None):
            needs = self.data is None
            raise IrpruneError(
                f"criterion={self.criterion} {'needs samples' if needs else 'looks at no data'}",
                mend="give data=FILE.npz" if needs else "drop data",
            )
        if self.criterion in _WITHOUT_WEIGHTS and self.members is not None:
            raise IrpruneError(
                f"criterion={self.criterion} measures no weights that create or read channels",
                mend="drop members",
            )
        if self.criterion == "reconstruction" and self.aggregate == "max":
            raise IrpruneError(
                "criterion=reconstruction adds up what readers lose, it has no maximum",
                mend="choose aggregate=mean or sum",
            )

    def of(
        self, model: Model, channels: Channels, groups: Sequence[Group], context: Context, seed: int
    ) -> Importance | Activity:
        """Return the scores of some groups."""
        members = self.members or "consumers"
        if self.data is None:
            how = cast(Criterion, self.criterion)
            made = Reconstruction if how == "reconstruction" else Importance
            return made(channels, how, members, self.aggregate, seed)
        samples = read_samples(self.data, channels.graph)
        what, choice = cast(DataCriterion, self.criterion), (members, self.aggregate)
        return Activity(model, channels, groups, what, samples, context, *choice)

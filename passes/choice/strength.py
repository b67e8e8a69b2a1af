"""Selection by one strength for all groups: a ratio to remove, or one counted cost to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from irprune.errors import IrpruneError
from irprune.passbase import Context
from irprune.passes.choice.offer import Offer
from irprune.passes.choice.selection import Candidate, Counts, Selection
from irprune.passes.choice.targets import Target
from irprune.plan import Mask

Scope = Literal["local", "global"]
_CLOSE = 0.02


@dataclass(frozen=True)
class Goal:
    """A cost to reach, in MACs or parameters."""

    target: Target
    bound: float
    original: int
    measure: Callable[[Mask], int]

    def least(self, selection: Selection, counts: Callable[[float], Counts]) -> int:
        """Return the least cost that this selection can reach."""
        return self.measure(selection.keep(counts(1.0)))

    def unreachable(self, selection: Selection, counts: Callable[[float], Counts]) -> IrpruneError:
        """Return the error that names the nearest target that can be reached."""
        share = self.least(selection, counts) / self.original
        what = self.target.what
        return IrpruneError(
            f"{what}={self.target.text} cannot be reached: the least is {share:.3f} of the "
            f"original",
            mend=f"ask for {what}={share + 0.001:.3f} or more, or relax align, min and skip",
        )

    def choose(
        self, selection: Selection, counts: Callable[[float], Counts], context: Context
    ) -> tuple[Counts, dict[str, Any]]:
        """Return the kept counts nearest to the target, and what they reach."""
        chosen = selection.towards(self.bound, self.measure, counts)
        reached = self.measure(selection.keep(chosen))
        missed = abs(reached - self.bound) > _CLOSE * self.bound
        what, share, wanted = self.target.what, reached / self.original, self.bound / self.original
        if missed:
            context.log(
                f"prune: {what} reached {share:.3f} of the original instead of {wanted:.3f}: "
                f"structure and alignment allow no nearer"
            )
        return chosen, {
            "target": {what: wanted},
            "reached": {what: share},
            "within_2_percent": not missed,
        }


def by_strength(
    offer: Offer, goal: Goal | float, scope: Scope, alignments: Sequence[int], context: Context
) -> tuple[Mask, dict[str, Any]]:
    """Return the kept classes under a goal, or where a ratio goes, and a report.

    Raises:
        IrpruneError: no alignment reaches the goal.
    """

    def choose() -> tuple[Mask, list[Candidate], dict[str, Any]]:
        for align in alignments:
            candidates = offer.candidates(align)
            selection = Selection(offer.channels, candidates, offer.alive, offer.fixed)
            counts = selection.spread() if scope == "global" else selection.local
            if not isinstance(goal, Goal):
                report: dict[str, Any] = {"target": {"ratio": goal}, "align": align}
                return selection.keep(counts(goal)), candidates, report
            if goal.least(selection, counts) <= goal.bound * (1 + _CLOSE):
                chosen, report = goal.choose(selection, counts, context)
                return selection.keep(chosen), candidates, {**report, "align": align}
        assert isinstance(goal, Goal)
        raise goal.unreachable(selection, counts)

    keep, _, report = offer.settled(choose, lambda choice: (choice[0], choice[1]))
    return keep, report

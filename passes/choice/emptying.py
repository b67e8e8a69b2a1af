"""Which groups may lose every class: those whose removal leaves the network alive.

A group lies inside a residual branch if the network without it still depends on its input: where
the branch ends, a constant is added to something else that is no constant (or the branch is one
part of a Concat, of which others stay).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from irprune.channels import Channels
from irprune.facts.remains import Remains
from irprune.groups import Group
from irprune.passes.choice.selection import Candidate
from irprune.plan import Mask
from irprune.queries import describe


class Emptying:
    """Judges sets of kept classes; ``alive`` are those that are kept already, ``(classes,)``."""

    def __init__(self, channels: Channels, alive: Mask) -> None:
        self._channels = channels
        self._alive = alive

    def obstacle(self, keep: Mask) -> str | None:
        """Return why the network cannot be without the axes that ``keep`` empties, or None."""
        remains = Remains(self._channels.graph, self._channels.plan(keep))
        if remains.obstacles:
            return remains.obstacles[0]
        for cut in remains.cuts:
            if cut.kind == "operand":
                return f"what {describe(cut.node)} reads there would not be added, but constant"
        return None

    def without(self, groups: Iterable[Group]) -> Mask:
        """Return what is kept when groups lose every class."""
        keep = self._alive.copy()
        for group in groups:
            keep[group.classes] = False
        return keep

    def allowed(self, groups: Iterable[Group], gone: Sequence[Group]) -> list[Group]:
        """Return the groups that the network can be without, each alone, besides ``gone``."""
        return [g for g in groups if self.obstacle(self.without([*gone, g])) is None]

    def barred(
        self, keep: Mask, candidates: Sequence[Candidate], forced: Sequence[Group]
    ) -> list[Group]:
        """Return groups that must keep a class: none if the network can do with ``keep``.

        Of the groups that it empties, those in ``forced`` go, then from the least important on
        each that the network can be without besides; the others are returned.
        """
        if self.obstacle(keep) is None:
            return []
        emptied = [c for c in candidates if c.group not in forced and not keep[c.alive].any()]
        emptied.sort(key=lambda c: float(c.scores.mean()))
        gone = list(forced)
        for candidate in emptied:
            if self.allowed([candidate.group], gone):
                gone.append(candidate.group)
        return [c.group for c in emptied if c.group not in gone] or [emptied[-1].group]

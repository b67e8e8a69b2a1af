"""What `prune` may choose from: the groups on offer, their classes by importance, their widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from irprune.channels import Channels, pin_reasons
from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.labels import Labels
from irprune.ops import rule_for
from irprune.ops.rule import Pin
from irprune.passes.choice.emptying import Emptying
from irprune.passes.choice.names import Names
from irprune.passes.choice.overrides import Overrides
from irprune.passes.choice.selection import Candidate, allowed_counts
from irprune.passes.scores.activity import Activity
from irprune.passes.scores.importance import Importance, Normalize, Scores, normalized
from irprune.plan import Mask
from irprune.queries import describe

_REASONS = 3
T = TypeVar("T")


class Offer:
    """The groups that may shrink, and what stays whatever is chosen.

    Args:
        channels: the channel classes of the graph.
        groups: its coupled groups.
        alive: classes not removed before, shape ``(classes,)``.
        importance: what a class is worth; groups where that is undefined stay, as `unscored`.
        normalize: how scores become comparable across groups.
        names: which groups may be pruned.
        forced: overrides.
        floor: least axis length; with 0, groups may go altogether where the network lives on.

    Raises:
        IrpruneError: nothing can be pruned, or an override matches nothing or would cut the
            network in two.
    """

    def __init__(
        self,
        channels: Channels,
        groups: list[Group],
        alive: Mask,
        importance: Importance | Activity,
        normalize: Normalize,
        names: Names,
        forced: Overrides,
        floor: int,
    ) -> None:
        forced.check(groups)
        self.channels, self.alive, self.floor = channels, alive, floor
        self.fixed: Mask = np.zeros(channels.count, np.bool_)
        self._forced = forced
        self.unscored: list[Group] = []
        self._members: list[tuple[Group, Labels, Scores]] = []
        for group in groups:
            wanted = names.match(group)
            scores = importance.of(group) if wanted else None
            if scores is None:
                self.fixed[group.classes] = alive[group.classes]
                self.unscored += [group] if wanted else []
            elif alive[group.classes].any():
                scores = normalized(scores, normalize, len(group.producers))
                self._members.append((group, *_ranked(group, scores, alive)))
        if not self._members and self.unscored:
            first = self.unscored[0].name
            reason = f"none of the groups on offer has a score by this criterion: {first}, ..."
            raise IrpruneError(reason, mend="choose another criterion, or check only and skip")
        if not self._members:
            raise _nothing(channels)
        self.groups = [group for group, _, _ in self._members]
        self._emptying = Emptying(channels, alive)
        self._gone = [group for group in self.groups if forced.empties(group)]
        without = self._emptying.without(self._gone)
        if self._gone and (obstacle := self._emptying.obstacle(without)) is not None:
            raise IrpruneError(
                f"the overrides remove the whole of {', '.join(g.name for g in self._gone)}: "
                f"{obstacle}",
                mend="keep a channel, or remove the whole branch up to the Add where it ends",
            )
        self._free = self._emptying.allowed(self.groups, self._gone) if floor == 0 else []

    def candidates(self, align: int) -> list[Candidate]:
        """Return what may be chosen for each group at an alignment."""
        return [self._candidate(*member, align) for member in self._members]

    def settled(
        self, choose: Callable[[], T], look: Callable[[T], tuple[Mask, Sequence[Candidate]]]
    ) -> T:
        """Return the first choice that the network can live with.

        ``look`` tells its kept classes and the candidates; after a choice that cuts the network in
        two, the groups that stand in the way may no longer go altogether.
        """
        while True:
            choice = choose()
            barred = self._emptying.barred(*look(choice), self._gone)
            if not barred:
                return choice
            self._free = [group for group in self._free if group not in barred]

    def _candidate(self, group: Group, classes: Labels, scores: Scores, align: int) -> Candidate:
        site = group.producers[0]
        # Positions of one unit along the axis, of which there may be several rows.
        positions = int(np.isin(site.classes, group.classes).sum()) * group.rows
        rows = site.classes.size // site.classes.shape[-1]
        multiplicity = max(1, positions // (len(group) * rows))
        floor = self.floor if group in self._free else max(self.floor, 1)
        allowed = allowed_counts(len(classes), multiplicity, align, floor)
        allowed = self._forced.narrowed(group, len(classes), multiplicity, allowed)
        return Candidate(group, classes, scores, multiplicity, allowed)


def _ranked(group: Group, scores: Scores, alive: Mask) -> tuple[Labels, Scores]:
    """Return the living classes of a group, one of each cell per line, and the lines' scores.

    The least important of every cell stand in the first line, shape ``(lines, cells)``.
    """
    living = alive[group.classes]
    classes, scores, cells = group.classes[living], scores[living], group.cells[living]
    order = np.lexsort((scores, cells))
    lines = classes[order].reshape(group.rows, -1).T
    means = scores[order].reshape(group.rows, -1).mean(axis=0)
    return lines, means


def _nothing(channels: Channels) -> IrpruneError:
    reasons = pin_reasons(channels, channels.contractions)
    most = sorted(reasons, key=lambda r: -reasons[r])[:_REASONS]
    why = "".join(f"; {reasons[r]} positions: {r}" for r in most)
    blind = [(n, r.reason) for n in channels.graph if isinstance(r := rule_for(n), Pin)]
    if not most:
        why = "".join(f"; {reason} at {describe(n)}" for n, reason in blind[:_REASONS])
    return IrpruneError(
        f"no channel can be pruned{why}",
        mend="`irprune inspect` lists every reason; check only and skip too",
    )

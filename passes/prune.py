"""`prune`: choose which channel classes to keep, as a pending plan; the graph stays untouched."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irprune.channels import ChannelClasses, Channels, pin_reasons
from irprune.cost import Cost, CostModel, input_symbols
from irprune.errors import IrpruneError
from irprune.groups import Group, Groups
from irprune.inexact import checked, passed
from irprune.labels import Labels
from irprune.model import Model
from irprune.ops import rule_for
from irprune.ops.rule import Pin
from irprune.passbase import Context, Pass, option
from irprune.passes.activity import DataCriterion
from irprune.passes.emptying import Emptying
from irprune.passes.importance import (
    Aggregate,
    Criterion,
    Members,
    Normalize,
    Scores,
    normalized,
)
from irprune.passes.scoring import Scoring
from irprune.passes.selection import Candidate, Counts, Selection, allowed_counts
from irprune.plan import Mask
from irprune.walk import Heads, describe

_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_CLOSE = 0.02
_REASONS = 3


@dataclass(frozen=True)
class Prune(Pass):
    """Select the least important channels under one target."""

    name = "prune"
    transforms = False

    criterion: Criterion | DataCriterion = option("l2", help="what makes a channel important")
    data: str | None = option(None, help=".npz file of samples, for criteria that look at data")
    members: Members = option("consumers", help="whose weights are measured")
    aggregate: Aggregate = option("mean", help="how the slices of a class become one score")
    normalize: Normalize = option("layers", help="how scores become comparable across groups")
    ratio: float | None = option(None, help="fraction of the classes to remove")
    macs: float | str | None = option(
        None, help="fraction of the original MACs to keep, or a number such as 300M"
    )
    params: float | str | None = option(
        None, help="fraction of the original parameters to keep, or a number such as 2M"
    )
    scope: Literal["local", "global"] = option(
        "global", help="rank within each group (the same ratio everywhere) or over all groups"
    )
    align: int | Literal["auto"] = option(
        1, help="make final axis lengths multiples of this; auto asks the device"
    )
    min: int = option(1, help="least final axis length; 0 lets residual branches go altogether")
    only: tuple[str, ...] = option((), help="prune only groups with a producer named like this")
    skip: tuple[str, ...] = option((), help="never prune groups with a producer named like this")
    overrides: str | None = option(
        None, help='TOML file of [groups."pattern"] tables with ratio or keep'
    )
    seed: int | None = option(None, help="for criterion=random; default: the run's seed")
    heads: Heads = option("inner", help="which axis of a split channel axis carries channels")
    allow: tuple[str, ...] = option(
        (), help="inexact ops that may lose channels: op names, or inexact for all of them"
    )
    tie: bool = option(
        False, help="remove the same indices from every convolution group and head, not as many"
    )

    def __post_init__(self) -> None:
        targets = [t for t in ("ratio", "macs", "params") if getattr(self, t) is not None]
        if len(targets) != 1:
            given = ", ".join(targets) or "none"
            raise IrpruneError(f"prune takes one of ratio, macs and params; given: {given}")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise IrpruneError(f"ratio={self.ratio} must lie in [0, 1): it is the part removed")
        for name in ("macs", "params"):
            value = getattr(self, name)
            if isinstance(value, str):
                _amount(name, value)
            elif value is not None and not 0 < value <= 1:
                raise IrpruneError(f"{name}={value} must lie in (0, 1]: it is the part kept")
        if self.align != "auto" and self.align < 1:
            raise IrpruneError("align must be at least 1")
        if self.min < 0:
            raise IrpruneError("min must not be negative")
        checked(self.allow)
        self._scoring()

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        channels = context.get(ChannelClasses(self.heads, self.allow, self.tie), model)
        groups = context.get(Groups(self.heads, self.allow, self.tie), model)
        alive = np.ones(channels.count, np.bool_)
        if model.pending is not None:
            alive = channels.keep_of(model.pending)
            if channels.plan(alive).to_json()["axes"] != model.pending.to_json()["axes"]:
                raise IrpruneError(
                    "the pending plan removes channels that are coupled or pinned otherwise here",
                    mend="compact it first, or use the same heads and allow",
                )
        forced = _Overrides.load(self.overrides)
        forced.check(groups)
        members, fixed = self._members(channels, groups, alive, model, context)
        if not members:
            raise self._nothing(channels)
        goal = self._goal(channels, model, context)
        emptying = Emptying(channels, alive)
        offered = [group for group, _, _ in members]
        gone = [group for group in offered if forced.empties(group)]
        if gone and (obstacle := emptying.obstacle(emptying.without(gone))) is not None:
            raise IrpruneError(
                f"the overrides remove the whole of {', '.join(g.name for g in gone)}: {obstacle}",
                mend="keep a channel, or remove the whole branch up to the Add where it ends",
            )
        free = emptying.allowed(offered, gone) if self.min == 0 else []
        while True:
            for align in self._alignments(context):
                candidates = [
                    self._candidate(*member, align, forced, member[0] in free) for member in members
                ]
                selection = Selection(channels, candidates, alive, fixed)
                counts = selection.spread() if self.scope == "global" else selection.local
                if goal is None or goal.least(selection, counts) <= goal.target * (1 + _CLOSE):
                    break
            else:
                assert goal is not None
                raise goal.unreachable(selection, counts)
            if goal is None:
                assert self.ratio is not None
                chosen, report = counts(self.ratio), {"target": {"ratio": self.ratio}}
            else:
                chosen, report = goal.choose(selection, counts, context)
            keep = selection.keep(chosen)
            barred = emptying.barred(keep, candidates, gone)
            if not barred:
                break
            free = [group for group in free if group not in barred]
        model.pending = channels.plan(keep)
        inexact = passed(channels.graph, model.pending)
        assert self.allow or not inexact, f"{inexact} lose channels without leave"
        emptied = sum(not keep[group.classes].any() for group in offered)
        return {
            **report,
            "align": align,
            "groups": len(candidates),
            **({"groups_emptied": emptied} if emptied else {}),
            "classes_removed": int((alive & ~keep).sum()),
            "classes": len(np.unique(np.concatenate([c.alive.ravel() for c in candidates]))),
            "inexact": inexact,
        }

    def _alignments(self, context: Context) -> list[int]:
        """Return the alignments to try: ``auto`` halves the device's until the target is reached.

        Networks narrower than the device's blocks could not be pruned at all otherwise.
        """
        if self.align != "auto":
            return [self.align]
        if context.device is None:
            raise IrpruneError("align=auto needs a device", mend="give a number, e.g. align=8")
        widest = context.device.align()
        return [widest >> k for k in range(widest.bit_length())]

    def _nothing(self, channels: Channels) -> IrpruneError:
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

    def _members(
        self, channels: Channels, groups: list[Group], alive: Mask, model: Model, context: Context
    ) -> tuple[list[tuple[Group, Labels, Scores]], Mask]:
        """Return the groups that may shrink, with their living classes from the least important
        on and their scores, and which classes must stay."""
        seed = context.seed if self.seed is None else self.seed
        wanted = [group for group in groups if self._matches(group)]
        importance = self._scoring().of(model, channels, wanted, context, seed)
        found: list[tuple[Group, Labels, Scores]] = []
        fixed = np.zeros(channels.count, np.bool_)
        for group in groups:
            scores = importance.of(group) if self._matches(group) else None
            if scores is None:
                fixed[group.classes] = alive[group.classes]
                continue
            if not alive[group.classes].any():
                continue
            scores = normalized(scores, self.normalize, len(group.producers))
            found.append((group, *_ranked(group, scores, alive)))
        return found, fixed

    def _scoring(self) -> Scoring:
        return Scoring(self.criterion, self.data, self.members, self.aggregate)

    def _candidate(
        self,
        group: Group,
        classes: Labels,
        scores: Scores,
        align: int,
        forced: _Overrides,
        free: bool,
    ) -> Candidate:
        """Return what may be chosen for a group; it may lose all classes where it is `free`."""
        site = group.producers[0]
        # Positions of one unit along the axis, of which there may be several rows.
        positions = int(np.isin(site.classes, group.classes).sum()) * group.rows
        rows = site.classes.size // site.classes.shape[-1]
        multiplicity = max(1, positions // (len(group) * rows))
        floor = self.min if free else max(self.min, 1)
        allowed = allowed_counts(len(classes), multiplicity, align, floor)
        allowed = forced.narrowed(group, len(classes), multiplicity, allowed)
        return Candidate(group, classes, scores, multiplicity, allowed)

    def _matches(self, group: Group) -> bool:
        def hit(patterns: tuple[str, ...]) -> bool:
            names = [*group.names, *(site.node.name or "" for site in group.producers)]
            return any(fnmatchcase(name, p) for name in names for p in patterns)

        return (not self.only or hit(self.only)) and not hit(self.skip)

    def _goal(self, channels: Channels, model: Model, context: Context) -> _Goal | None:
        """Return the cost target, or None where a ratio is asked for."""
        if self.ratio is not None:
            return None
        what = "macs" if self.macs is not None else "params"
        wanted = self.macs if self.macs is not None else self.params
        assert wanted is not None
        graph = (model.base or model.ir).graph  # fractions are of the graph before any pruning
        costs = CostModel(graph, input_symbols(graph, context.shapes)).full()
        original = costs.macs if what == "macs" else costs.params
        target = _amount(what, wanted) if isinstance(wanted, str) else wanted * original
        measure = context.get(Cost(), model).measure(channels, what)
        return _Goal(what, str(wanted), target, original, measure)


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


@dataclass(frozen=True)
class _Goal:
    """A cost to reach, in MACs or parameters."""

    what: str
    wanted: str
    target: float
    original: int
    measure: Callable[[Mask], int]

    def least(self, selection: Selection, counts: Callable[[float], Counts]) -> int:
        """Return the least cost that this selection can reach."""
        return self.measure(selection.keep(counts(1.0)))

    def unreachable(self, selection: Selection, counts: Callable[[float], Counts]) -> IrpruneError:
        share = self.least(selection, counts) / self.original
        return IrpruneError(
            f"{self.what}={self.wanted} cannot be reached: the least is {share:.3f} of the "
            f"original",
            mend=f"ask for {self.what}={share + 0.001:.3f} or more, or relax align, min and skip",
        )

    def choose(
        self, selection: Selection, counts: Callable[[float], Counts], context: Context
    ) -> tuple[Counts, dict[str, Any]]:
        """Return the kept counts nearest to the target, and what they reach."""
        chosen = selection.towards(self.target, self.measure, counts)
        reached = self.measure(selection.keep(chosen))
        missed = abs(reached - self.target) > _CLOSE * self.target
        if missed:
            context.log(
                f"prune: {self.what} reached {reached / self.original:.3f} of the original "
                f"instead of {self.target / self.original:.3f}: structure and alignment allow "
                f"no nearer"
            )
        return chosen, {
            "target": {self.what: self.target / self.original},
            "reached": {self.what: reached / self.original},
            "within_2_percent": not missed,
        }


def _amount(name: str, text: str) -> float:
    """Return an absolute target such as 300M or 2.1G."""
    match = re.fullmatch(r"([0-9.]+)\s*([kMGT]?)", text)
    try:
        assert match is not None
        return float(match[1]) * _UNITS[match[2]]
    except (AssertionError, ValueError) as error:
        raise IrpruneError(f'{name}="{text}" is no number with an optional k, M, G or T') from error


@dataclass(frozen=True)
class _Overrides:
    """Kept fractions or counts of single groups, by name pattern, whatever the target."""

    rules: tuple[tuple[str, str, float], ...] = ()

    @classmethod
    def load(cls, path: str | None) -> _Overrides:
        if path is None:
            return cls()
        try:
            tables = tomllib.loads(Path(path).read_text())["groups"]
            rules = [(p, k, float(v)) for p, t in tables.items() for k, v in t.items()]
        except (
            OSError,
            tomllib.TOMLDecodeError,
            KeyError,
            AttributeError,
            ValueError,
            TypeError,
        ) as e:
            raise IrpruneError(
                f"not a usable override file: {e}",
                file=path,
                mend='write [groups."layer1.*"] tables with ratio = 0.3 or keep = 16',
            ) from e
        for pattern, key, value in rules:
            if (
                key not in ("ratio", "keep")
                or (key == "ratio" and not 0 <= value <= 1)
                or not 0 <= value < np.inf
            ):
                raise IrpruneError(
                    f"{pattern}: {key} = {value:g} is not ratio in [0, 1] or keep", file=path
                )
        return cls(tuple(rules))

    def check(self, groups: list[Group]) -> None:
        """Raise IrpruneError for a pattern that matches no group: most likely misspelt."""
        for pattern, _, _ in self.rules:
            if not any(fnmatchcase(name, pattern) for g in groups for name in g.names):
                raise IrpruneError(
                    f"override {pattern!r} matches no group", mend="see `irprune inspect`"
                )

    def narrowed(self, group: Group, total: int, multiplicity: int, allowed: Counts) -> Counts:
        """Return the one allowed count that the last matching rule asks for, or all of them."""
        rule = self._rule(group)
        if rule is None:
            return allowed
        if self.empties(group):
            return np.zeros(1, np.int64)
        key, value = rule
        kept = value / multiplicity if key == "keep" else total * (1 - value)
        allowed = allowed[allowed > 0]
        return allowed[[np.abs(allowed - kept).argmin()]]

    def empties(self, group: Group) -> bool:
        """Return whether the last matching rule removes the whole group."""
        return self._rule(group) in (("keep", 0), ("ratio", 1))

    def _rule(self, group: Group) -> tuple[str, float] | None:
        """Return key and value of the last matching rule."""
        for pattern, key, value in reversed(self.rules):
            if any(fnmatchcase(name, pattern) for name in group.names):
                return key, value
        return None

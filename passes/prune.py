"""`prune`: choose which channel classes to keep, as a pending plan; the graph stays untouched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from irprune.analyses import ChannelClasses, Groups
from irprune.channels import Channels
from irprune.cost import Cost, CostModel, input_symbols
from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.inexact import checked, passed
from irprune.model import Model
from irprune.passbase import Context, Pass, option
from irprune.passes.choice.budgeted import Worth
from irprune.passes.choice.joint import by_bounds
from irprune.passes.choice.names import Names
from irprune.passes.choice.offer import Offer
from irprune.passes.choice.overrides import Overrides
from irprune.passes.choice.strength import Goal, Scope, by_strength
from irprune.passes.choice.targets import Target, What
from irprune.passes.scores.activity import DataCriterion
from irprune.passes.scores.importance import Aggregate, Criterion, Members, Normalize
from irprune.passes.scores.scoring import Scoring
from irprune.plan import Mask
from irprune.protocols import DeviceModel
from irprune.walk import Heads


@dataclass(frozen=True)
class Prune(Pass):
    """Select the least important channels under a target, or under several at once.

    One of `ratio`, `macs` and `params` is met by removing the least important channels first,
    however much each costs. With `latency`, `memory` or several targets, widths are chosen that
    keep the most importance within all of them.
    """

    name = "prune"
    transforms = False

    criterion: Criterion | DataCriterion = option(
        "reconstruction", help="what makes a channel important"
    )
    data: str | None = option(None, help=".npz file of samples, for criteria that look at data")
    members: Members | None = option(
        None, help="whose weights are measured, by criteria of weights; default: consumers"
    )
    aggregate: Aggregate = option("mean", help="how the slices of a class become one score")
    normalize: Normalize = option("layers", help="how scores become comparable across groups")
    ratio: float | None = option(None, help="fraction of the classes to remove")
    latency: float | str | None = option(
        None,
        help="fraction of the measured latency to keep, or a time such as 12ms; least, beside macs "
        "or params: the fastest of that size that is worth no less than uniform pruning",
    )
    macs: float | str | None = option(
        None, help="fraction of the original MACs to keep, or a number such as 300M"
    )
    params: float | str | None = option(
        None, help="fraction of the original parameters to keep, or a number such as 2M"
    )
    memory: float | str | None = option(
        None, help="fraction of weights and peak activations to keep, or bytes such as 80MB"
    )
    device: str | None = option(
        None, help="whose latency and widths count: auto, cpu:2, tpu-v2, ... (`irprune device`)"
    )
    worth: Worth = option(
        "log",
        help="under joint targets: sum keeps most importance in total, log also in every group",
    )
    scope: Scope = option(
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
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise IrpruneError(f"ratio={self.ratio} must lie in [0, 1): it is the part removed")
        if self.ratio is not None and self.targets:
            given = ", ".join(["ratio", *self.targets])
            raise IrpruneError(f"ratio goes with no other target; given: {given}")
        if self.ratio is None and not self.targets:
            raise IrpruneError(
                "prune takes ratio, or latency, macs, params and memory; given: none"
            )
        latency = self.targets.get("latency")
        if (
            latency
            and latency.least
            and set(self.targets) - {"latency"} not in ({"macs"}, {"params"})
        ):
            raise IrpruneError("latency=least goes with one of macs and params, and nothing else")
        if self.align != "auto" and self.align < 1:
            raise IrpruneError("align must be at least 1")
        if self.min < 0:
            raise IrpruneError("min must not be negative")
        checked(self.allow)
        self._scoring()

    @cached_property
    def targets(self) -> dict[What, Target]:
        """Return the costs that are bounded."""
        names: tuple[What, ...] = ("latency", "macs", "params", "memory")
        given = {name: getattr(self, name) for name in names}
        return {name: Target.of(name, to) for name, to in given.items() if to is not None}

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        channels = context.get(ChannelClasses(self.heads, self.allow, self.tie), model)
        groups = context.get(Groups(self.heads, self.allow, self.tie), model)
        alive = _alive(channels, model)
        seed = context.seed if self.seed is None else self.seed
        names = Names(self.only, self.skip)
        names.check(channels)
        wanted = [group for group in groups if names.match(group)]
        offer = Offer(
            channels,
            groups,
            alive,
            self._scoring().of(model, channels, wanted, context, seed),
            self.normalize,
            names,
            Overrides.load(self.overrides),
            self.min,
        )
        if offer.unscored:
            kept = ", ".join(group.name for group in offer.unscored)
            context.log(f"prune: keeps groups without a score by {self.criterion} whole: {kept}")
        keep, report = self._chosen(offer, groups, model, context)
        model.pending = channels.plan(keep)
        inexact = passed(channels.graph, model.pending)
        assert self.allow or not inexact, f"{inexact} lose channels without leave"
        emptied = sum(not keep[group.classes].any() for group in offer.groups)
        offered = np.concatenate([group.classes for group in offer.groups])
        return {
            **report,
            "groups": len(offer.groups),
            **({"groups_emptied": emptied} if emptied else {}),
            **({"groups_unscored": len(offer.unscored)} if offer.unscored else {}),
            "classes_removed": int((alive & ~keep).sum()),
            "classes": int(alive[offered].sum()),
            "inexact": inexact,
        }

    def _chosen(
        self, offer: Offer, groups: list[Group], model: Model, context: Context
    ) -> tuple[Mask, dict[str, Any]]:
        if self.ratio is not None:
            return by_strength(offer, self.ratio, self.scope, self._alignments(context), context)
        graph = (model.base or model.ir).graph  # fractions are of the graph before any pruning
        original = CostModel(graph, input_symbols(graph, context.shapes))
        if set(self.targets) in ({"macs"}, {"params"}) and self.device is None:
            (target,) = self.targets.values()
            whole = getattr(original.full(), target.what)
            measure = context.get(Cost(), model).measure(offer.channels, target.what)
            goal = Goal(target, target.bound(whole), whole, measure)
            return by_strength(offer, goal, self.scope, self._alignments(context), context)
        device = self._device(context) if self.device or "latency" in self.targets else None
        alignments: list[int | None] = [*self._alignments(context)]
        if device is not None and self.align in ("auto", 1):
            alignments = [None, *_halves(device)[1:]]
        return by_bounds(
            offer, self.targets, original, self.worth, alignments, device, groups, model, context
        )

    def _scoring(self) -> Scoring:
        return Scoring(self.criterion, self.data, self.members, self.aggregate)

    def _device(self, context: Context) -> DeviceModel:
        if self.device in (None, "auto"):
            if context.device is None:
                mend = "give a number, e.g. align=8" if self.align == "auto" else None
                what = "align=auto" if self.align == "auto" else "a latency target"
                raise IrpruneError(f"{what} needs a device", mend=mend)
            return context.device
        if context.devices is None:
            raise IrpruneError(f"device={self.device}: no devices are known here")
        assert self.device is not None
        return context.devices(self.device)

    def _alignments(self, context: Context) -> list[int]:
        """Return the alignments to try: ``auto`` halves the device's until the target is reached.

        Networks narrower than the device's blocks could not be pruned at all otherwise.
        """
        return [self.align] if self.align != "auto" else _halves(self._device(context))


def _halves(device: DeviceModel) -> list[int]:
    """Return the alignment of a device, and its halves down to 1."""
    widest = device.align()
    return [widest >> k for k in range(widest.bit_length())]


def _alive(channels: Channels, model: Model) -> Mask:
    """Return the classes that a pending plan has left."""
    if model.pending is None:
        return np.ones(channels.count, np.bool_)
    alive = channels.keep_of(model.pending)
    if channels.plan(alive).to_json()["axes"] != model.pending.to_json()["axes"]:
        raise IrpruneError(
            "the pending plan removes channels that are coupled or pinned otherwise here",
            mend="compact it first, or use the same heads and allow",
        )
    return alive

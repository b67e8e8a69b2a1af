"""Channels and groups as the manager caches them: computed once per graph and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irprune.channels import Channels, analyse
from irprune.groups import Group, coupled_groups
from irprune.passbase import Analysis
from irprune.walk import Heads

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context


@dataclass(frozen=True)
class ChannelClasses(Analysis[Channels]):
    """Give every position along every tensor axis its channel class.

    ``heads`` says which axis of a split channel axis carries the channels where both could,
    ``allow`` which inexact ops may lose channels (`irprune.inexact`); with ``tie`` the groups of a
    convolution or the heads lose the same indices, not only equally many.
    """

    heads: Heads = "inner"
    allow: tuple[str, ...] = ()
    tie: bool = False

    def compute(self, model: Model, context: Context) -> Channels:
        return analyse(model.ir.graph, self.heads, self.allow, self.tie)


@dataclass(frozen=True)
class Groups(Analysis[list[Group]]):
    """The coupled groups of a model, in the order in which their first producer stands."""

    heads: Heads = "inner"
    allow: tuple[str, ...] = ()
    tie: bool = False

    def compute(self, model: Model, context: Context) -> list[Group]:
        channels = context.get(ChannelClasses(self.heads, self.allow, self.tie), model)
        return coupled_groups(channels)

"""Coupled groups: classes that touch the same producer axes equally often are peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from irprune.channels import ChannelClasses, Channels, Site
from irprune.labels import Labels
from irprune.passbase import Analysis
from irprune.walk import Heads

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context


@dataclass(frozen=True)
class Groups(Analysis["list[Group]"]):
    """The coupled groups of a model, in the order in which their first producer stands."""

    heads: Heads = "inner"
    allow: tuple[str, ...] = ()

    def compute(self, model: Model, context: Context) -> list[Group]:
        return coupled_groups(context.get(ChannelClasses(self.heads, self.allow), model))


@dataclass(frozen=True)
class Group:
    """Interchangeable classes: ranked against each other, removed one by one."""

    index: int
    classes: Labels
    """Ascending class ids, shape ``(size,)``."""
    producers: tuple[Site, ...]
    """The producer axes that every class of the group touches."""

    @property
    def name(self) -> str:
        """The first producer tensor: what `only`, `skip` and override files match."""
        return self.producers[0].value.name or ""

    @property
    def names(self) -> tuple[str, ...]:
        """Every producer tensor of the group."""
        return tuple(dict.fromkeys(site.value.name or "" for site in self.producers))

    def __len__(self) -> int:
        return len(self.classes)


def distinct_producers(channels: Channels) -> list[Site]:
    """Return the producer axes, each (tensor, axis) once although several nodes may use it."""
    seen: dict[tuple[object, int], Site] = {}
    for site in channels.producers:
        seen.setdefault((site.value, site.axis), site)
    return list(seen.values())


def coupled_groups(channels: Channels) -> list[Group]:
    """Group the classes by signature.

    Each producer axis has a random 64-bit number; a class's signature is the wrapped sum over
    the producer axes that it touches, once per touched position. Classes that no parameter
    creates belong to no group.
    """
    sites = distinct_producers(channels)
    numbers = np.random.default_rng(0).integers(1, 2**63, len(sites), dtype=np.uint64)
    signature: npt.NDArray[np.uint64] = np.zeros(channels.count, np.uint64)
    for site, number in zip(sites, numbers, strict=True):
        np.add.at(signature, site.classes, number)
    signature[0] = 0
    classes = np.flatnonzero(signature)
    _, inverse = np.unique(signature[classes], return_inverse=True)
    members = np.split(
        classes[np.argsort(inverse, kind="stable")], np.cumsum(np.bincount(inverse))[:-1]
    )
    group_of = np.full(channels.count, -1, np.int64)
    group_of[classes] = inverse
    touched: dict[int, list[Site]] = {}
    for site in sites:
        for number in np.unique(group_of[site.classes]):
            if number >= 0:
                touched.setdefault(int(number), []).append(site)
    return [
        Group(index, members[number], tuple(producers))
        for index, (number, producers) in enumerate(touched.items())
    ]

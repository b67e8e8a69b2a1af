"""Coupled groups: classes that touch the same producer axes equally often are peers."""

from __future__ import annotations

from collections.abc import Iterator
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

    def compute(self, model: Model, context: Context) -> list[Group]:
        return coupled_groups(context.get(ChannelClasses(self.heads), model))


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
    if not len(classes):
        return []
    _, first, inverse = np.unique(signature[classes], return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    members = np.split(classes[order], np.cumsum(np.bincount(inverse))[:-1])
    position = {int(classes[first[k]]): k for k in range(len(members))}
    return list(_ordered(members, position, sites))


def _ordered(members: list[Labels], position: dict[int, int], sites: list[Site]) -> Iterator[Group]:
    """Yield the groups in the order of their first producer, with the producers they touch."""
    touched: dict[int, list[Site]] = {}
    for site in sites:
        present = np.unique(site.classes)
        for representative in present[np.isin(present, list(position))]:
            touched.setdefault(position[int(representative)], []).append(site)
    for index, (number, producers) in enumerate(touched.items()):
        yield Group(index, members[number], tuple(producers))

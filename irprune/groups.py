"""Coupled groups: classes that touch the same producer axes equally often are peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from irprune.channels import Channels, Site
from irprune.labels import Labels

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Group:
    """Interchangeable classes: ranked against each other, removed one of each cell at a time."""

    index: int
    classes: Labels
    """Ascending class ids, shape ``(size,)``."""
    producers: tuple[Site, ...]
    """The producer axes that the classes of the group touch."""
    cells: Labels
    """The cell of each class, shape ``(size,)``: of every cell equally many classes go."""

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

    @property
    def rows(self) -> int:
        """How many cells there are."""
        return int(self.cells.max()) + 1 if len(self.cells) else 1


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
    creates belong to no group. Where rows must keep equally many classes, all of them are one
    group, whatever creates them.
    """
    sites = distinct_producers(channels)
    numbers = np.random.default_rng(0).integers(1, 2**63, len(sites), dtype=np.uint64)
    signature: npt.NDArray[np.uint64] = np.zeros(channels.count, np.uint64)
    for site, number in zip(sites, numbers, strict=True):
        np.add.at(signature, site.classes, number)
    cell = np.zeros(channels.count, np.int64)
    for number, cells in enumerate(channels.walk.cells, start=1):
        cell[cells] = np.arange(len(cells))[:, None]
        signature[cells] = number if signature[cells].any() else 0
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
        Group(index, members[number], tuple(producers), cell[members[number]])
        for index, (number, producers) in enumerate(touched.items())
    ]

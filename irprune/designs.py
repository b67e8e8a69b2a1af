"""Designed plans: sets of kept classes that let a device see every kernel at many widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from irprune.channels import Channels
from irprune.groups import Group
from irprune.plan import Mask

FRACTIONS = (0.5, 0.25, 0.75)
"""Uniform widths that come first: a model of any size gets its ends and its middle."""

LEAST = 0.15
"""Least fraction of a group that a random plan keeps."""


def kept(channels: Channels, groups: Sequence[Group], counts: Sequence[int]) -> Mask:
    """Return the classes to keep where each group keeps the first ``counts`` of each cell."""
    keep = np.ones(channels.count, np.bool_)
    for group, number in zip(groups, counts, strict=True):
        keep[group.classes[ranks(group) >= max(1, number)]] = False
    return channels.balanced(keep)


def ranks(group: Group) -> np.ndarray:
    """Return the place of each class among those of its cell, shape ``(size,)``."""
    order = np.argsort(group.cells, kind="stable")
    place = np.empty(len(order), np.int64)
    counts = np.bincount(group.cells)
    counts = counts[counts > 0]
    place[order] = np.concatenate([np.arange(n) for n in counts])
    return place


def designs(
    channels: Channels, groups: Sequence[Group], step: int, seed: int = 0
) -> Iterator[Mask]:
    """Yield sets of kept classes without end: uniform ones, then random ones.

    Of three random plans two keep multiples of ``step`` where the group is wide enough.
    """
    rng = np.random.default_rng(seed)
    sizes = np.array([int(ranks(group).max()) + 1 for group in groups], np.int64)
    for fraction in FRACTIONS:
        yield kept(channels, groups, on_steps(sizes * fraction, sizes, step).tolist())
    turn = 0
    while True:
        turn += 1
        wanted = sizes * rng.uniform(LEAST, 1, len(sizes))
        counts = on_steps(wanted, sizes, step) if turn % 3 else np.ceil(wanted).astype(np.int64)
        yield kept(channels, groups, counts.tolist())


def on_steps(wanted: np.ndarray, sizes: np.ndarray, step: int) -> np.ndarray:
    """Return the multiples of ``step`` nearest to the wanted counts, within [1, size]."""
    rounded = np.maximum(1, np.rint(wanted / step)) * step
    return np.asarray(np.minimum(sizes, rounded), np.int64)

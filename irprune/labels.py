"""Union-find over channel classes, vectorised over whole label arrays.

Class ids are non-negative integers. Id 0 is the *pinned* class, and the representative of a
merged class is its smallest id, so whatever merges with the pinned class becomes pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
"""Class ids of the positions along one tensor axis, shape ``(positions,)``."""

Axis = Labels | None
"""One tensor axis: its labels, or ``None`` for an opaque (dynamic) axis, which is pinned."""

PINNED = 0


@dataclass(frozen=True, eq=False)
class Rows:
    """Labels along one axis that differ per index of other axes of the same tensor.

    Every row loses equally many positions, so that the tensor stays rectangular; which ones they
    are may differ: the channels of the groups of a convolution, the widths within heads.
    """

    per: tuple[int, ...]
    """The other axes, ascending."""
    labels: Labels
    """Shape ``(*lengths of per, positions)``."""

    def __len__(self) -> int:
        return int(self.labels.shape[-1])

    @property
    def flat(self) -> Labels:
        """The rows one below the other, shape ``(rows, positions)``."""
        flat: Labels = self.labels.reshape(-1, len(self))
        return flat


Labelled = Axis | Rows
"""One tensor axis, with one set of labels or with one per row."""


def per_row(per: tuple[int, ...], labels: Labels) -> Labelled:
    """Return labels per row of those of the axes ``per`` that are long; plain ones if none is."""
    long = [k for k, length in enumerate(labels.shape[:-1]) if length != 1]
    labels = labels.reshape(*(labels.shape[k] for k in long), labels.shape[-1])
    return Rows(tuple(per[k] for k in long), labels) if long else labels


def moved(axis: Labelled, place: Callable[[int], int]) -> Labelled:
    """Return an axis of a tensor whose axis ``k`` now is axis ``place(k)``."""
    if not isinstance(axis, Rows):
        return axis
    per = [place(k) for k in axis.per]
    order = np.argsort(per)
    labels = axis.labels.transpose(*order, len(per))
    return Rows(tuple(sorted(per)), labels)


def shifted(axes: Sequence[Labelled], by: int) -> list[Labelled]:
    """Return the axes of a tensor numbered as in one that has more axes before them."""
    return [moved(axis, lambda k: k + by) for axis in axes]


def selected(axes: Sequence[Labelled], k: int, index: Labels) -> list[Labelled]:
    """Return the axes of a tensor after indexing axis ``k`` with positions of shape ``(n,)``."""
    return [_selected(axis, own == k, k, index) for own, axis in enumerate(axes)]


def _selected(axis: Labelled, itself: bool, k: int, index: Labels) -> Labelled:
    if not isinstance(axis, Rows):
        return axis[index] if itself and axis is not None else axis
    if itself:
        return per_row(axis.per, axis.labels[..., index])
    if k in axis.per:
        return per_row(axis.per, np.take(axis.labels, index, axis=axis.per.index(k)))
    return axis


def without(axis: Labelled, k: int) -> Labelled:
    """Return an axis of a tensor that loses axis ``k``, which had one position."""
    if not isinstance(axis, Rows):
        return axis
    if k in axis.per:
        labels = axis.labels.squeeze(axis.per.index(k))
        axis = per_row(tuple(p for p in axis.per if p != k), labels)
    return moved(axis, lambda p: p - (p > k))


def ids_of(axis: Labelled) -> Labels:
    """Return every label of an axis in one dimension; none for an opaque axis."""
    if axis is None:
        return np.zeros(0, np.int64)
    ids: Labels = axis.labels.ravel() if isinstance(axis, Rows) else axis
    return ids


class UnionFind:
    """Disjoint sets of class ids with array-at-a-time ``find`` and ``union``.

    Args:
        reserved: ids ``0 .. reserved - 1`` exist from the start and all count as pinned.
    """

    def __init__(self, reserved: int = 1) -> None:
        self.reserved = reserved
        self._parent: Labels = np.arange(max(1024, 2 * reserved), dtype=np.int64)
        self._size = reserved

    def fresh(self, count: int) -> Labels:
        """Return ``count`` new class ids, each a set of its own."""
        start, self._size = self._size, self._size + count
        if self._size > len(self._parent):
            grown = np.arange(max(2 * len(self._parent), self._size), dtype=np.int64)
            grown[:start] = self._parent[:start]
            self._parent = grown
        return np.arange(start, self._size, dtype=np.int64)

    def find(self, ids: Labels) -> Labels:
        """Return the representative of every id (path halving on the whole array)."""
        parent = self._parent
        below, roots = ids, parent[ids]
        while not np.array_equal(above := parent[roots], roots):
            parent[below] = above
            below, roots = above, parent[above]
        parent[ids] = roots
        return roots

    def union(self, left: Labels, right: Labels) -> None:
        """Merge ``left[i]`` with ``right[i]`` for every i (numpy broadcasting allowed)."""
        left, right = np.broadcast_arrays(left, right)
        a, b = self.find(left.ravel()), self.find(right.ravel())
        while True:
            differ = a != b
            if not differ.any():
                return
            a, b = a[differ], b[differ]
            high, low = np.maximum(a, b), np.minimum(a, b)
            # Several lows may meet one high: the smallest wins here, the next round joins the rest.
            np.minimum.at(self._parent, high, low)
            a, b = self.find(high), self.find(low)

    def pinned(self, ids: Labels) -> npt.NDArray[np.bool_]:
        """Return which ids belong to a reserved (pinned) class."""
        return self.find(ids) < self.reserved

    def roots(self) -> Labels:
        """Return the representative of every id, reserved classes merged into class 0."""
        roots = self.find(np.arange(self._size, dtype=np.int64))
        return np.where(roots < self.reserved, PINNED, roots)

"""Union-find over channel classes, vectorised over whole label arrays.

Class ids are non-negative integers. Id 0 is the *pinned* class, and the representative of a
merged class is its smallest id, so whatever merges with the pinned class becomes pinned.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
"""Class ids of the positions along one tensor axis, shape ``(positions,)``."""

Axis = Labels | None
"""One tensor axis: its labels, or ``None`` for an opaque (dynamic) axis, which is pinned."""

PINNED = 0


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

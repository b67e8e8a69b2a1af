"""Balanced removal: rows that must lose equally many channels, whichever these are.

The groups of a convolution, the groups of a GroupNormalization and the heads of an attention keep
a tensor rectangular as long as every one of them loses the same *number* of channels. Several such
constraints may meet on the same channels. Here they are combined into *cells*: removing one class
of every cell together keeps all of them. Where that is impossible the rows have to be tied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from irprune.labels import PINNED, Labels, UnionFind


def settled(union_find: UnionFind, balances: Sequence[Labels]) -> tuple[list[int], list[Labels]]:
    """Combine constraints, each of shape ``(rows, positions)``.

    Returns the numbers of the constraints that cannot be kept unless their rows are tied, and the
    cells of each set of connected constraints: class ids of shape ``(cells, size)``.
    """
    tangled: list[int] = []
    loose: dict[int, Labels] = {}
    for number, rows in enumerate(balances):
        classes = np.where(union_find.pinned(rows), PINNED, union_find.find(rows))
        distinct = np.unique(np.sort(classes, axis=1), axis=0)
        if len(distinct) == 1:
            continue
        if _independent(distinct := _without_common(distinct)):
            loose[number] = distinct
        else:
            tangled.append(number)
    cells: list[Labels] = []
    for numbers in _connected(loose):
        found = _cells([loose[number] for number in numbers])
        if found is None:
            tangled += numbers
        else:
            cells.append(found)
    return tangled, cells


def _without_common(rows: Labels) -> Labels:
    """Return rows in which classes that stand equally often in every row count as pinned.

    Where such a class goes, every row loses equally many positions.
    """
    count = len(rows)
    keys, times = np.unique(rows * count + np.arange(count)[:, None], return_counts=True)
    ids = keys // count
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    everywhere = np.diff(starts, append=len(ids)) == count
    alike = np.minimum.reduceat(times, starts) == np.maximum.reduceat(times, starts)
    return np.where(np.isin(rows, ids[starts[everywhere & alike]]), PINNED, rows)


def _independent(rows: Labels) -> bool:
    """Whether every class stands in one row only, all equally often, in rows of equal size."""
    free = rows != PINNED
    counts = free.sum(axis=1)
    if counts.min() != counts.max():
        return False
    owners, ids = np.nonzero(free)[0], rows[free]
    pairs, multiplicity = np.unique(np.stack([ids, owners]), axis=1, return_counts=True)
    exclusive = len(np.unique(pairs[0])) == pairs.shape[1]
    return bool(exclusive and multiplicity.min() == multiplicity.max())


def _connected(loose: dict[int, Labels]) -> Iterator[list[int]]:
    """Yield the numbers of the constraints that share classes, directly or not."""
    if not loose:
        return
    numbers = list(loose)
    size = max(int(rows.max()) for rows in loose.values()) + 1
    union_find = UnionFind(len(numbers))
    owner = np.full(size, -1, np.int64)
    for k, number in enumerate(numbers):
        ids = loose[number][loose[number] != PINNED]
        others = np.unique(owner[ids])
        union_find.union(np.full(len(others), k, np.int64)[others >= 0], others[others >= 0])
        owner[ids] = k
    roots = union_find.find(np.arange(len(numbers), dtype=np.int64))
    for root in np.unique(roots):
        yield [numbers[k] for k in np.flatnonzero(roots == root)]


def _cells(constraints: Sequence[Labels]) -> Labels | None:
    """Return the classes that stand in the same rows of all constraints, one cell per line.

    None where the cells are not equally large, or the rows of a constraint do not have equally
    many of them: then one class of each would not do.
    """
    classes = np.unique(np.concatenate([rows.ravel() for rows in constraints]))
    classes = classes[classes != PINNED]
    row_of: npt.NDArray[np.int64] = np.full((len(constraints), len(classes)), -1, np.int64)
    for k, rows in enumerate(constraints):
        free = rows != PINNED
        row_of[k, np.searchsorted(classes, rows[free])] = np.nonzero(free)[0]
    kinds, cell, sizes = np.unique(row_of, axis=1, return_inverse=True, return_counts=True)
    if sizes.min() != sizes.max():
        return None
    for row in kinds:
        counts = np.bincount(row[row >= 0])
        if counts.min() != counts.max():
            return None
    order = np.argsort(cell.ravel(), kind="stable")
    cells: Labels = classes[order].reshape(len(sizes), -1)
    return cells

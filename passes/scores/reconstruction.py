"""What a layer's readers lose with a channel, those that go before it taken into account.

ThiNet (Luo et al. 2017, section 3.2) removes the channels S whose contributions to the next layer
add up to least, E|Σ_S w_i a_i|² with a_i the activation of channel i and w_i the column that reads
it, one after another, from samples. Here the activations are not looked at: they are taken to have
the same mean and variance everywhere and to be independent, so that what is lost is
Σ_ij <w_i, w_j> + c Σ_i |w_i|², c = variance / mean². Channels whose columns cancel out go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.groups import Group
from irprune.labels import Labels
from irprune.passes.scores.importance import Importance, Scores, finite, rows_by_class, rows_of

_SPREAD = 5.0
"""Variance over squared mean of an activation; that of rectified normal numbers is π - 1."""
_STAGES = 16
"""Each takes the least of the channels that are left, an equal part of the group."""
_SAMPLE = 1024
"""Elements of a column from which products of columns are estimated, the first ones."""


class _Columns(NamedTuple):
    """The columns of one weight, a row per class."""

    place: npt.NDArray[np.int64] | slice
    """Where in the group the classes stand."""
    squares: Scores
    sample: npt.NDArray[np.floating]
    """The first elements, shape ``(classes, elements)``."""
    share: float
    """How many of all elements they are."""


class Reconstruction(Importance):
    """Scores that add up, from the least on, to what the readers lose together."""

    def of(self, group: Group) -> Scores | None:
        members = [self._columns(*member, group) for member in self._slices(group)]
        if not members:
            return None
        squares, counts = np.zeros(len(group)), np.zeros(len(group))
        for columns in members:
            squares[columns.place] += columns.squares
            counts[columns.place] += 1
        scores = _greedy(members, squares)
        return scores / np.maximum(counts, 1) if self.aggregate == "mean" else scores

    def _columns(self, value: ir.Value, axis: int, classes: Labels, group: Group) -> _Columns:
        if value.const_value is None:  # the same number everywhere: no channel matters more
            none = np.zeros(len(group))
            return _Columns(slice(None), none, none[:, None], 1.0)
        array = value.const_value.numpy()
        place: npt.NDArray[np.int64] | slice = slice(None)
        if np.array_equal(classes, group.classes):
            rows = rows_of(array, axis)
        else:
            per = self.channels.per(value, axis) if classes.ndim > 1 else ()
            rows, found = rows_by_class(array, axis, per, classes)
            inside = np.isin(found, group.classes)
            rows, place = rows[inside], np.searchsorted(group.classes, found[inside])
        squares = finite(np.einsum("ij,ij->i", rows, rows), value)
        sample = rows[:, :_SAMPLE]
        return _Columns(place, squares, sample, min(1.0, _SAMPLE / max(1, rows.shape[1])))


def _greedy(members: Sequence[_Columns], squares: Scores) -> Scores:
    """Return what each class adds to the loss when its turn comes, never less than the one before.

    Args:
        squares: of all its columns, by class.
    """
    size = len(squares)
    scores, cross, left = np.zeros(size), np.zeros(size), np.arange(size)
    step, reached = -(-size // _STAGES), 0.0
    while left.size:
        added = (1 + _SPREAD) * squares[left] + 2 * cross[left]
        order = np.argsort(added, kind="stable")[:step]
        gone = left[order]
        scores[gone] = np.maximum.accumulate(np.maximum(added[order], reached))
        reached = scores[gone[-1]]
        left = np.delete(left, order)
        if left.size:
            chosen = np.zeros(size, np.float32)
            chosen[gone] = 1
            for place, _, sample, share in members:
                cross[place] += sample @ (chosen[place] @ sample) / share
    return scores

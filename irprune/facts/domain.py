"""The abstract values of the analysis, and the numbering of equal slices by 64-bit hashes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint64]

MOST_SLICES = 1 << 20
"""Facts about more slices of one value than this are given up."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_CONSTANT = np.uint64(0xD6E8FEB86659FD93)


@np.errstate(over="ignore")
def scramble(numbers: Numbers) -> Numbers:
    """Return a bijective 64-bit mix of each number (the finaliser of splitmix64)."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


@np.errstate(over="ignore")
def chain(key: np.uint64, *parts: Numbers) -> Numbers:
    """Return one number per position from the numbers of the parts, in order (broadcasting)."""
    result: Numbers = np.asarray(key)[...]
    for part in parts:
        result = scramble(result * _FIRST + part + _STEP)
    return result


def digest(*parts: object) -> np.uint64:
    """Return a 64-bit hash of texts or bytes."""
    state = blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        state.update(len(data).to_bytes(8, "little") + data)
    return np.uint64(int.from_bytes(state.digest(), "little"))


def bit_patterns(array: Array) -> Numbers:
    """Return the bits of each element; -0.0 counts as 0.0."""
    array = np.asarray(array, order="C")
    if array.dtype.kind in "fV":
        array = array + array.dtype.type(0)
    return array.view(f"u{array.itemsize}").astype(np.uint64)


def positions(count: int, axis: int) -> Numbers:
    """Return one number for each position along an axis, shape ``(count,)``."""
    start = np.full(count, axis + 1, np.uint64) * _SECOND
    return scramble(start + np.arange(1, count + 1, dtype=np.uint64) * _STEP)


@dataclass(frozen=True)
class Facts:
    """What is known about the slices of one value.

    The arrays have the rank of the value; along each axis they have its length (the axis is
    *tracked*) or length 1. An entry speaks of the slice that fixes a position on every tracked
    axis and takes the whole of the others. Build them with `make`, `opaque` or `of_array`.
    """

    known: Mask
    """The slice holds one finite constant."""
    const: Array
    """That constant, in the dtype of the value; 0 where it is not known."""
    number: Numbers
    """Slices of equal shape and equal number are equal; known constants are numbered alike."""

    @classmethod
    def make(cls, known: Mask, const: Array, number: Numbers) -> Facts:
        """Return canonical facts from arrays that broadcast against each other."""
        known, const, number = np.broadcast_arrays(known, const, number)
        known = known & np.isfinite(const)
        const = np.where(known, const, np.zeros((), const.dtype))
        constants = scramble(bit_patterns(const) + _CONSTANT)
        return cls(known, const, np.where(known, constants, number))

    @classmethod
    def opaque(cls, rank: int, dtype: npt.DTypeLike, number: np.uint64) -> Facts:
        """Return the facts of a value about which nothing is known; no axis is tracked."""
        shape = (1,) * rank
        zero = np.zeros(shape, dtype)
        return cls(np.zeros(shape, np.bool_), zero, np.full(shape, number))

    @classmethod
    def of_array(cls, array: Array) -> Facts:
        """Return the facts of a constant tensor; axes along which it is uniform stay untracked."""
        for k in range(array.ndim):
            first = array.take([0], axis=k) if array.shape[k] > 1 else array
            if (array == first).all():
                array = first
        zeros = np.zeros(array.shape, np.uint64)
        numbers = scramble(bit_patterns(array) + _CONSTANT) if array.size else zeros
        known = np.ones(array.shape, np.bool_)
        return cls.make(known, array, numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis: that of the value, or 1."""
        return self.number.shape

    def tracked(self, axis: int) -> bool:
        """Return whether positions along the axis are told apart."""
        return bool(self.number.shape[axis] > 1)

    def raised(self, rank: int) -> Facts:
        """Return the facts with axes of length 1 put in front, as broadcasting does."""
        return self.reshaped((1,) * (rank - len(self.shape)) + self.shape)

    def reshaped(self, shape: Sequence[int]) -> Facts:
        """Return the same entries under another shape."""
        return self._each(lambda part: part.reshape(shape))

    def transposed(self, order: Sequence[int]) -> Facts:
        """Return the entries with the axes in another order."""
        return self._each(lambda part: part.transpose(order))

    def taken(self, indices: Array, axis: int) -> Facts:
        """Return the entries at positions along a tracked axis; `indices` of any rank."""
        return self._each(lambda part: part.take(indices, axis=axis))

    def repeated(self, times: Sequence[int]) -> Facts:
        """Return the entries tiled along each axis."""
        return self._each(lambda part: np.tile(part, times))

    def through(self, *key: object, keep: Mask | bool = True) -> Facts:
        """Return the facts after an op, named by `key`, that keeps constants where `keep`."""
        return Facts.make(self.known & keep, self.const, chain(digest(*key), self.number))

    def stretched(self, lengths: Mapping[int, int]) -> Facts:
        """Return the facts with more axes tracked: axis to its length."""
        shape, number = list(self.shape), self.number
        for axis, length in lengths.items():
            if shape[axis] != 1 or length == 1:
                continue
            shape[axis] = length
            along = [1] * len(shape)
            along[axis] = length
            number = scramble(number + positions(length, axis).reshape(along))
        known, const = np.broadcast_to(self.known, shape), np.broadcast_to(self.const, shape)
        return Facts.make(known, const, number)

    def collapsed(self, axes: Collection[int]) -> Facts:
        """Return the facts with fewer axes tracked."""
        axes = tuple(k for k in axes if self.tracked(k))
        if not axes:
            return self
        first, number = self.const, self.number
        for k in axes:
            first = first.take([0], axis=k)
            along = [1] * len(self.shape)
            along[k] = self.shape[k]
            number = scramble(number + positions(self.shape[k], k).reshape(along))
        known = (self.known & (self.const == first)).all(axis=axes, keepdims=True)
        total = number.sum(axis=axes, keepdims=True, dtype=np.uint64)
        return Facts.make(known, first, scramble(total))

    def along(self, axis: int, length: int) -> Facts:
        """Return facts of rank 1 about the positions of one axis of the given length."""
        others = [k for k in range(len(self.shape)) if k != axis]
        return self.collapsed(others).stretched({axis: length}).reshaped((length,))

    def _each(self, move: Callable[[Array], Array]) -> Facts:
        return Facts(move(self.known), move(self.const), move(self.number))

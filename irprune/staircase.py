"""Staircases found in measured times: what a kernel costs as a function of its axis lengths.

A kernel's time is a sum of works (multiply-accumulates, bytes read, written, of weights) at its
lengths and at its lengths rounded up to a *step*, each times a rate that is not negative.  Blocked
kernels often exist for multiples of some *divisor* only: then there are two sets of rates.  Step,
divisor and the axes that must be its multiples are one law for all kernels of a kind, and the law
is the one that explains the measurements best.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irprune.kernels import Lengths, NodeKernel, Numbers, Role

STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
DIVISORS = (2, 4, 8, 16, 32, 64)
ROLES: tuple[Role, ...] = ("in", "out", "all")

_GAIN = 0.05
"""A law with one more constant must lower the error by this part."""

_FEW = 4
"""Samples without which a kernel takes the rates of its kind."""

_FLOOR_S = 2e-6
"""Kernels faster than this are noise: errors count relative to no less."""

Condition = tuple[Role, int] | None
"""Axes of which role must be multiples of what, for the faster of two sets of rates."""


@dataclass(frozen=True)
class Law:
    """How kernels of one kind round lengths up, and when they take the other path."""

    step: int = 1
    condition: Condition = None

    @property
    def unit(self) -> int:
        """Multiples of this stand at the right ends of the stairs."""
        return max(self.step, self.condition[1] if self.condition else 1)

    def units(self, kernel: NodeKernel) -> list[int]:
        """Return the same for each axis of a kernel: the condition is about some of them."""
        columns = kernel.columns(self.condition[0]) if self.condition else []
        return [self.unit if k in columns else self.step for k in range(len(kernel.axes))]

    def holds(self, kernel: NodeKernel, lengths: Lengths) -> NDArray[np.bool_]:
        """Return where the condition is met, shape ``(k,)``."""
        if self.condition is None:
            return np.ones(len(lengths), np.bool_)
        role, divisor = self.condition
        return np.asarray((lengths[:, kernel.columns(role)] % divisor == 0).all(axis=1))


@dataclass(frozen=True)
class Term:
    """Seconds of a kernel: rates where the law's condition is met, and where it is not."""

    law: Law
    met: Numbers
    unmet: Numbers

    def at(self, kernel: NodeKernel, lengths: Lengths) -> Numbers:
        """Return the seconds, shape ``(k,)``, at ``lengths`` of shape ``(k, axes)``."""
        x = features(kernel, lengths, self.law.step)
        return np.where(self.law.holds(kernel, lengths), x @ self.met, x @ self.unmet)


@dataclass(frozen=True, eq=False)
class Samples:
    """Measured seconds, shape ``(k,)``, of one kernel or its equals at ``lengths``."""

    kernel: NodeKernel
    lengths: Lengths
    seconds: Numbers


@dataclass(frozen=True)
class Finding:
    """The law of a kind, its error and that of straight lines, and how many seconds it is about.

    Errors are sums of absolute differences over the sum of the measured seconds.
    """

    law: Law
    error: float
    straight: float
    seconds: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Read what ``asdict`` made; ValueError, KeyError or TypeError where it is not that."""
        condition = data["law"]["condition"]
        if condition is not None:
            role, divisor = condition
            if role not in ROLES:
                raise ValueError(f"{role} is no role")
            condition = (role, int(divisor))
        law = Law(int(data["law"]["step"]), condition)
        return cls(law, *(float(data[name]) for name in ("error", "straight", "seconds")))


def features(kernel: NodeKernel, lengths: Lengths, step: int) -> Numbers:
    """Return the works that a kernel's time is made of, shape ``(k, works)``."""
    parts = [np.ones(len(lengths))]
    for rounding in (1, step) if step > 1 else (1,):
        work = kernel.work(lengths, rounding)
        parts += [work.macs, work.inputs, work.outputs, work.weights]
    return np.stack(parts, axis=1)


def learn(samples: Sequence[Samples]) -> tuple[dict[str, Term], dict[str, Finding]]:
    """Return a term per signature and what was found per kind."""
    kinds: dict[str, list[_Lesson]] = defaultdict(list)
    for sample in samples:
        kinds[sample.kernel.kind].append(_Lesson(sample))
    terms: dict[str, Term] = {}
    findings: dict[str, Finding] = {}
    for kind, lessons in kinds.items():
        law, error, straight = _search(lessons)
        seconds = sum(float(lesson.seconds.sum()) for lesson in lessons) or _FLOOR_S
        findings[kind] = Finding(law, error / seconds, straight / seconds, seconds)
        fallback = _rates([_stacked(lessons, law, side) for side in (True, False)])
        for lesson in lessons:
            rates = lesson.rates(law, fallback)
            terms[lesson.kernel.signature] = Term(law, *rates)
    return terms, findings


class _Lesson:
    """The samples of one signature, with their features at every step, made once."""

    def __init__(self, samples: Samples) -> None:
        self.kernel = samples.kernel
        self.lengths = samples.lengths
        self.seconds = np.maximum(samples.seconds, 0)
        self._features: dict[int, Numbers] = {}
        self._columns = {role: self.kernel.columns(role) for role in ROLES}

    def at(self, step: int) -> Numbers:
        if step not in self._features:
            self._features[step] = features(self.kernel, self.lengths, step)
        return self._features[step]

    def side(self, law: Law, met: bool) -> NDArray[np.bool_]:
        if law.condition is None:
            return np.full(len(self.seconds), met)
        role, divisor = law.condition
        holds = (self.lengths[:, self._columns[role]] % divisor == 0).all(axis=1)
        return np.asarray(holds == met)

    def rates(self, law: Law, fallback: Sequence[Numbers]) -> list[Numbers]:
        """Return the rates of both sides; those of the kind where there are few samples."""
        found = []
        for side, other in zip((True, False), fallback, strict=True):
            rows = self.side(law, side)
            enough = rows.sum() >= _FEW
            found.append(fit(self.at(law.step)[rows], self.seconds[rows]) if enough else other)
        return found

    def error(self, law: Law) -> float:
        """Return the sum of absolute errors of the law's best rates."""
        total = 0.0
        for side in (True, False):
            rows = self.side(law, side)
            if rows.any():
                x, y = self.at(law.step)[rows], self.seconds[rows]
                total += float(np.abs(x @ fit(x, y) - y).sum())
        return total


def _search(lessons: Sequence[_Lesson]) -> tuple[Law, float, float]:
    """Return the law with the least error, that error, and the error without a law.

    The step and the condition take turns, once in either order: each is the best for the other.
    """

    def error(law: Law) -> float:
        return sum(lesson.error(law) for lesson in lessons)

    straight = error(Law())
    ways = [
        _descend(error, straight, order) for order in ((_steps, _conditions), (_conditions, _steps))
    ]
    best, least = min(ways, key=lambda way: way[1])
    return best, least, straight


def _descend(
    error: Callable[[Law], float], straight: float, order: Sequence[Callable[[Law], Iterator[Law]]]
) -> tuple[Law, float]:
    best, least = Law(), straight
    for options in (*order, order[0]):
        for law in options(best):
            if (found := error(law)) < least * (1 - _GAIN):
                best, least = law, found
    for simpler in (Law(1, best.condition), Law(best.step)):
        if (found := error(simpler)) <= least * (1 + _GAIN):
            best, least = simpler, found
    return best, least


def _conditions(law: Law) -> Iterator[Law]:
    for divisor in DIVISORS:
        for role in ROLES:
            yield Law(law.step, (role, divisor))


def _steps(law: Law) -> Iterator[Law]:
    for step in STEPS:
        yield Law(step, law.condition)


def _stacked(lessons: Sequence[_Lesson], law: Law, side: bool) -> tuple[Numbers, Numbers]:
    rows = [lesson.side(law, side) for lesson in lessons]
    x = [lesson.at(law.step)[r] for lesson, r in zip(lessons, rows, strict=True)]
    y = [lesson.seconds[r] for lesson, r in zip(lessons, rows, strict=True)]
    return np.concatenate(x), np.concatenate(y)


def _rates(sides: Sequence[tuple[Numbers, Numbers]]) -> list[Numbers]:
    """Return the rates of a kind on both sides of its condition; a side not seen is the other."""
    seen = [fit(x, y) if len(y) else None for x, y in sides]
    known = next(rates for rates in seen if rates is not None)
    return [known if rates is None else rates for rates in seen]


def fit(x: Numbers, y: Numbers) -> Numbers:
    """Return rates >= 0 that bring ``x @ rates`` nearest to ``y``, relative to ``y``.

    The active-set method of Lawson and Hanson on the normal equations; x has shape
    ``(samples, works)``.
    """
    weight = 1 / np.maximum(y, _FLOOR_S)
    scaled, target = x * weight[:, None], y * weight
    norms = np.linalg.norm(scaled, axis=0)
    norms[norms == 0] = 1
    scaled = scaled / norms
    gram = scaled.T @ scaled + 1e-7 * np.eye(x.shape[1])
    moment = scaled.T @ target
    rates = np.zeros(x.shape[1])
    active = np.zeros(x.shape[1], np.bool_)
    for _ in range(5 * len(rates)):
        gradient = np.where(active, -np.inf, moment - gram @ rates)
        if gradient.max() <= 1e-9 * max(1.0, float(np.abs(moment).max())):
            break
        active[gradient.argmax()] = True
        while True:
            solved = np.zeros(len(rates))
            solved[active] = np.linalg.solve(gram[np.ix_(active, active)], moment[active])
            bad = active & (solved <= 0)
            if not bad.any():
                rates = solved
                break
            ratio = rates[bad] / (rates[bad] - solved[bad])
            rates = rates + ratio.min() * (solved - rates)
            active &= rates > 1e-12
            rates[~active] = 0
    return np.asarray(rates / norms)

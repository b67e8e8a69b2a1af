"""How much better than a found choice the best one can be: an upper bound of its value.

The bounds are priced (Lagrange), and the priced problem is relaxed to a sum of terms of one group
and of pairs of groups. Passing messages along the pairs (Globerson and Jaakkola 2007, MPLP) raises
the dual of its linear relaxation; every dual value bounds the value of every feasible choice.

Costs are taken to rise with lengths. A kernel of two axes that one group each makes is exact. Where
several groups make an axis (what reads a Concat) the kernel is replaced by lines below it; where
that holds of two axes, or there are more axes, by its least cost. All of these are below the
kernel, so the bound stays a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irprune.passes.choice.problem import Lengths, Menu, Numbers, Problem

_BUCKETS = 64
_SWEEPS = 12
_FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0)
"""Multiples of the prices to try: each gives a bound."""


@dataclass
class _Parts:
    """Costs below the true ones, as fractions of the bounds; budgets stand on the last axis."""

    constant: Numbers
    single: list[Numbers]
    """Shape ``(entries, budgets)`` each."""
    pairs: dict[tuple[int, int], Numbers]
    """Shape ``(entries of the first, entries of the second, budgets)``."""


def upper_bound(problem: Problem, prices: Numbers) -> float:
    """Return a value that no choice within the bounds exceeds.

    The nearer the prices (value per fraction of each bound) to the best ones, the tighter.
    """
    buckets = [_buckets(menu) for menu in problem.menus]
    values = [menu.values[top] for menu, (_, top) in zip(problem.menus, buckets, strict=True)]
    parts = _Relaxation(problem, [bottom for bottom, _ in buckets]).parts()
    return min(_dual(parts, values, factor * prices) for factor in _FACTORS)


def _buckets(menu: Menu) -> tuple[Lengths, Lengths]:
    """Return the first and the last entry of at most so many runs of entries."""
    size = len(menu.counts)
    edges = np.unique(np.linspace(0, size, min(size, _BUCKETS) + 1).round().astype(np.int64))
    return edges[:-1], edges[1:] - 1


def _dual(parts: _Parts, values: list[Numbers], prices: Numbers) -> float:
    """Return price of the bounds less the least priced cost less value, from below."""
    beliefs = [s @ prices - value for s, value in zip(parts.single, values, strict=True)]
    tables = {pair: table @ prices for pair, table in parts.pairs.items()}
    messages = {pair: (np.zeros(t.shape[0]), np.zeros(t.shape[1])) for pair, t in tables.items()}
    for _ in range(_SWEEPS):
        for (first, second), table in tables.items():
            to_first, to_second = messages[first, second]
            mine, theirs = beliefs[first] - to_first, beliefs[second] - to_second
            whole = table + mine[:, None] + theirs[None, :]
            halves = whole.min(axis=1) / 2, whole.min(axis=0) / 2
            messages[first, second] = halves[0] - mine, halves[1] - theirs
            beliefs[first], beliefs[second] = halves
    least = float(parts.constant @ prices) + sum(float(b.min()) for b in beliefs)
    for pair, table in tables.items():
        to_first, to_second = messages[pair]
        least += float((table - to_first[:, None] - to_second[None, :]).min())
    return float(prices.sum()) - least


class _Relaxation:
    """Takes the kernels of a problem apart into terms of one group and of pairs of groups."""

    def __init__(self, problem: Problem, entries: list[Lengths]) -> None:
        self._problem = problem
        self._added = [menu.added[rows] for menu, rows in zip(problem.menus, entries, strict=True)]
        self._makers: dict[int, list[tuple[int, Lengths]]] = {}
        for group, menu in enumerate(problem.menus):
            for place, axis in enumerate(menu.axes.tolist()):
                made = self._makers.setdefault(axis, [])
                made.append((group, self._added[group][:, place]))

    def parts(self) -> _Parts:
        """Return the relaxation of all budgets."""
        count = len(self._problem.budgets)
        parts = _Parts(
            np.array([b.cost.constant / b.bound for b in self._problem.budgets]),
            [np.zeros((len(added), count)) for added in self._added],
            {},
        )
        for number, budget in enumerate(self._problem.budgets):
            for kernel, about in enumerate(budget.cost.kernels):
                self._split(parts, number, kernel, about.axes)
        return parts

    def _split(self, parts: _Parts, number: int, kernel: int, axes: tuple[int, ...]) -> None:
        budget = self._problem.budgets[number]
        if not axes:
            parts.constant[number] += self._fixed(number, kernel)
            return
        makers = [self._makers.get(axis, []) for axis in axes]
        groups = [[group for group, _ in made] for made in makers]
        fixed = self._problem.fixed[list(axes)]

        def cost(columns: list[Lengths]) -> Numbers:
            lengths = np.stack(np.broadcast_arrays(*columns), axis=-1)
            flat = budget.cost.terms(kernel, lengths.reshape(-1, len(axes)))
            return np.asarray(flat, np.float64).reshape(lengths.shape[:-1]) / budget.bound

        owners = sorted({group for made in groups for group in made})
        lone = all(len(made) <= 1 for made in groups)
        if not owners:
            parts.constant[number] += float(cost([np.array(n) for n in fixed]))
        elif lone and len(owners) == 1:
            columns = [n + (m[0][1] if m else 0) for n, m in zip(fixed, makers, strict=True)]
            parts.single[owners[0]][:, number] += cost([np.asarray(c) for c in columns])
        elif lone and len(owners) == 2:
            first, second = owners
            columns = [
                n + (0 if not m else m[0][1][:, None] if m[0][0] == first else m[0][1][None, :])
                for n, m in zip(fixed, makers, strict=True)
            ]
            table = cost([np.asarray(c) for c in columns])
            self._pair(parts, first, second)[:, :, number] += table
        elif sum(len(made) > 1 for made in groups) == 1 and len(axes) <= 2:
            self._lines(parts, number, makers, fixed, cost)
        else:
            least = [
                n + sum(int(a.min()) for _, a in m) for n, m in zip(fixed, makers, strict=True)
            ]
            parts.constant[number] += float(cost([np.array(n) for n in least]))

    def _fixed(self, number: int, kernel: int) -> float:
        """Return the cost of a kernel that no length changes."""
        budget = self._problem.budgets[number]
        return float(budget.cost.terms(kernel, np.zeros((1, 0), np.int64))[0]) / budget.bound

    def _lines(
        self,
        parts: _Parts,
        number: int,
        makers: list[list[tuple[int, Lengths]]],
        fixed: Lengths,
        cost: object,
    ) -> None:
        """Add lines below a kernel along the axis that several groups make."""
        assert callable(cost)
        wide = next(k for k, made in enumerate(makers) if len(made) > 1)
        other = 1 - wide if len(makers) == 2 else None
        host = makers[other][0] if other is not None and makers[other] else None
        low = int(fixed[wide]) + sum(int(a.min()) for _, a in makers[wide])
        high = int(fixed[wide]) + sum(int(a.max()) for _, a in makers[wide])
        along = np.arange(low, high + 1)
        columns: list[Lengths] = [along[None, :]] * len(makers)
        if other is not None:
            across = fixed[other] + (host[1] if host is not None else np.zeros(1, np.int64))
            columns[other] = across[:, None]
        table = np.atleast_2d(cost(columns))
        slope = (table[:, -1] - table[:, 0]) / max(1, high - low)
        start = (table - slope[:, None] * along).min(axis=1) + slope * fixed[wide]
        if host is None:
            parts.constant[number] += float(start[0])
        else:
            parts.single[host[0]][:, number] += start
        for group, added in makers[wide]:
            if host is None:
                parts.single[group][:, number] += slope[0] * added
            elif group == host[0]:
                parts.single[group][:, number] += slope * added
            elif group < host[0]:
                self._pair(parts, group, host[0])[:, :, number] += added[:, None] * slope
            else:
                self._pair(parts, host[0], group)[:, :, number] += slope[:, None] * added

    def _pair(self, parts: _Parts, first: int, second: int) -> Numbers:
        shape = (len(self._added[first]), len(self._added[second]), len(self._problem.budgets))
        return parts.pairs.setdefault((first, second), np.zeros(shape))

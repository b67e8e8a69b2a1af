"""Most value under cost bounds: a multiple-choice knapsack whose items share costs.

What a width costs depends on the widths that it meets: a convolution on its input and its output.
So no table of items and weights exists, and the method is this.

1. *Lagrangian descent.* At a price per unit of cost, groups take turns at the entry with the best
   value less priced cost, until none moves. The price is bisected to the bound. With several
   bounds, the prices among them follow what is violated.
2. *Repair.* From the cheapest choice found that is too dear, the moves that lose least value per
   cost saved lead to a choice within the bounds.
3. *Polish.* Groups grow into what room is left; then pairs of moves, one group down and one up,
   are made while the value rises. Every move is judged by its exact cost.

The result is feasible, not proved optimal; `irprune.passes.choice.bound` says how far off it can
be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from irprune.passes.choice.problem import Numbers, Problem, State

_BISECTIONS = 24
_SWEEPS = 40
_ROUNDS = 5
"""Times that the prices of several bounds are set against each other."""
_STARTS = 2
"""Choices that are polished, the best of those found before."""
_PAIRS = 30
"""Pairs of moves that are tried exactly before the polish stops."""
_POLISH = 400
"""Moves that the polish makes at most."""
_EPSILON = 1e-9


@dataclass
class Solution:
    """The best choice found, and what was seen on the way."""

    state: State
    prices: Numbers
    """Value per fraction of each bound, where the search ended."""
    visited: list[tuple[Numbers, float]] = field(default_factory=list)
    """Costs as fractions of their bounds, and value, of the choices of the descent."""


def solve(problem: Problem) -> Solution | None:
    """Return the best choice found within all bounds; None if there is none even at the least."""
    least = State(problem, problem.least())
    if not least.feasible:
        return None
    full = State(problem, problem.full())
    solution = Solution(least, np.zeros(len(problem.budgets)))
    if full.feasible:
        solution.state = full
        return solution
    shares = np.ones(len(problem.budgets)) / len(problem.budgets)
    scale = max(full.value - least.value, _EPSILON)
    starts: list[tuple[State, Numbers]] = []
    for _ in range(_ROUNDS if len(shares) > 1 else 1):
        above, below, price = _bracket(full, least, shares, scale, solution)
        starts += [(_repaired(above), price * shares), (below, price * shares)]
        shares = shares * np.exp(4 * (below.costs - below.costs.max()))
        shares /= shares.sum()
    starts.sort(key=lambda start: -start[0].value)
    for state, prices in starts[:_STARTS]:
        polished = _polished(state)
        if polished.value > solution.state.value:
            solution.state, solution.prices = polished, prices
    return solution


def nearby(problem: Problem, solution: Solution) -> Solution | None:
    """Return a choice within all bounds that lies near another, by shrinking or growing it.

    Menus must be those that the other was chosen from.
    """
    state = _polished(_repaired(State(problem, solution.state.choice)))
    return Solution(state, solution.prices) if state.feasible else None


def grown(start: State) -> State:
    """Return a choice that has grown into what room its bounds leave, most value per cost first."""
    state = start.copy()
    while _grow(state):
        pass
    return state


def _bracket(
    full: State, least: State, shares: Numbers, scale: float, solution: Solution
) -> tuple[State, State, float]:
    """Return neighbours on both sides of the bounds, and the price between them."""
    low, high = 1e-3 * scale, 1e3 * scale
    above, below = full, least
    for _ in range(_BISECTIONS):
        price = float(np.sqrt(low * high))
        state = _descended(above, price * shares)
        solution.visited.append((state.costs, state.value))
        if state.feasible:
            high, below = price, state if state.value >= below.value else below
        else:
            low, above = price, state
        if np.array_equal(above.choice, below.choice) or high / low < 1 + 1e-4:
            break
    return above, below, float(np.sqrt(low * high))


def _descended(start: State, prices: Numbers) -> State:
    """Let groups take turns at their best entry until none moves."""
    state = start.copy()
    waiting = set(range(len(state.choice)))
    for _ in range(_SWEEPS):
        moved = False
        for group in sorted(waiting):
            worth = state.gains(group) - state.changes(group) @ prices
            best = len(worth) - 1 - int(np.argmax(worth[::-1]))
            if worth[best] > _EPSILON:
                state.move(group, best)
                moved = True
        if not moved:
            break
    return state


def _repaired(start: State) -> State:
    """Shrink groups, least value per cost first, until all costs are within their bounds."""
    state = start.copy()
    while not state.feasible:
        excess = np.maximum(state.costs - 1, 0)
        best: tuple[float, int, int] | None = None
        for group in range(len(state.choice)):
            saved = np.minimum(-state.changes(group), excess) @ (excess > 0)
            lost = -state.gains(group)
            usable = np.flatnonzero(saved > _EPSILON)
            if len(usable):
                rates = lost[usable] / saved[usable]
                entry = int(usable[np.argmin(rates)])
                if best is None or rates.min() < best[0]:
                    best = float(rates.min()), group, entry
        if best is None:
            return State(state.problem, state.problem.least())
        state.move(best[1], best[2])
    return state


def _polished(start: State) -> State:
    """Fill the room that is left, then trade widths between groups while the value rises."""
    state = start.copy()
    for _ in range(_POLISH):
        if not (_grow(state) or _trade(state)):
            break
    return state


def _grow(state: State) -> bool:
    """Make the move of one group that gains most value per cost and stays within the bounds."""
    room = 1 - state.costs
    best: tuple[float, int, int] | None = None
    for group in range(len(state.choice)):
        gains, changes = state.gains(group), state.changes(group)
        for entry in np.flatnonzero((gains > _EPSILON) & (changes <= room).all(axis=1)).tolist():
            rate = gains[entry] / max(float(changes[entry].max()), _EPSILON)
            if best is None or rate > best[0]:
                best = rate, group, entry
    if best is not None:
        state.move(best[1], best[2])
    return best is not None


def _trade(state: State) -> bool:
    """Make the best of the pairs of moves, one down and one up, that really gains."""
    for first, second in _pairs(state):
        trial = state.copy()
        trial.move(*first)
        group, entry = second
        if (
            trial.gains(group)[entry] + state.gains(first[0])[first[1]] > _EPSILON
            and (trial.costs + trial.changes(group)[entry] <= 1).all()
        ):
            state.move(*first)
            state.move(*second)
            return True
    return False


def _pairs(state: State) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield (down, up) moves that gain by the present costs of each alone, the best first."""
    groups = range(len(state.choice))
    sizes = [len(menu.counts) for menu in state.problem.menus]
    owner = np.repeat(list(groups), sizes)
    entry = np.concatenate([np.arange(size) for size in sizes])
    gains = np.concatenate([state.gains(group) for group in groups])
    changes = np.concatenate([state.changes(group) for group in groups])
    cost = changes[:, int(np.argmax(state.costs))]
    room = float(1 - state.costs.max())
    up, down = np.flatnonzero(gains > 0), np.flatnonzero((gains < 0) & (cost < 0))
    up = up[np.argsort(cost[up], kind="stable")]
    best = np.maximum.accumulate(gains[up]) if len(up) else gains[up]
    place = np.searchsorted(cost[up], room - cost[down], side="right") - 1
    down, place = down[place >= 0], place[place >= 0]
    total = gains[down] + best[place]
    for at in np.argsort(-total, kind="stable")[:_PAIRS]:
        if total[at] <= _EPSILON:
            return
        mine = down[at]
        fits = up[: place[at] + 1]
        fits = fits[owner[fits] != owner[mine]]
        if not len(fits):
            continue
        other = fits[np.argmax(gains[fits])]
        if gains[other] + gains[mine] > _EPSILON:
            yield (int(owner[mine]), int(entry[mine])), (int(owner[other]), int(entry[other]))

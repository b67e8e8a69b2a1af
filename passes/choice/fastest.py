"""The fastest choice of a given size: widths are traded for speed, down to uniform pruning's worth.

The choice that is worth most at a count (MACs or parameters) is rarely the fastest one. From it,
and from uniform pruning, pairs of moves, one group down and one up, lower the latency while the
count stays within 1 % of its bound, those first that save most latency for the worth they cost,
until the choice would be worth less than the same share kept of every group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from irprune.passes.choice.problem import Numbers, Problem, State
from irprune.passes.choice.solver import grown

_SLACK = 0.01
"""How far the count may fall below its bound."""
_STEPS = 8
"""Entries of a menu, each way, that one move may cross."""
_TRIALS = 40
"""Pairs of moves that are tried exactly before the trade stops."""
_TRADES = 400
_BISECTIONS = 24
_EPSILON = 1e-9


def uniform(problem: Problem) -> State:
    """Return the choice that keeps the same share of every group, as large as the bounds allow.

    The least choice where none is.
    """
    best = State(problem, problem.least())
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        share = (low + high) / 2
        nearest = [np.abs(menu.counts - share * menu.counts[-1]).argmin() for menu in problem.menus]
        state = State(problem, np.array(nearest, np.int64))
        if state.feasible:
            low, best = share, state
        else:
            high = share
    return best


def from_best(best: State, floor: float) -> State | None:
    """Begin at the choice that is worth most."""
    return best


def from_uniform(best: State, floor: float) -> State | None:
    """Begin at uniform pruning, grown to the bounds; None where its widths are worth too little."""
    even = grown(uniform(best.problem))
    return even if even.value >= floor else None


Start = Callable[[State, float], State | None]
STARTS: tuple[Start, ...] = (from_best, from_uniform)
"""Where trades may begin. What a device predicts of either end may be off: measure both."""


def hastened(start: State, floor: float) -> State:
    """Return a choice of nearly the same count and less latency, worth no less than a floor.

    Args:
        start: within its bounds, of which the first is the count and the second the latency.
        floor: the least value, in the terms of the menus.
    """
    state = start.copy()
    least = min(1 - _SLACK, float(state.costs[0]))
    for _ in range(_TRADES):
        faster = next(_faster(state, least, floor), None)
        if faster is None:
            break
        state = faster
    return state


def _faster(state: State, least: float, floor: float) -> Iterator[State]:
    """Yield the states after one trade, the best by present costs first; each is really faster."""
    count, latency = state.costs
    moves = _Moves.of(state)
    room = state.value - floor
    rated: list[tuple[float, int, int]] = []
    for first in range(len(moves.owner)):
        others = np.flatnonzero(moves.owner > moves.owner[first])
        changed = moves.changes[others] + moves.changes[first]
        gain = moves.gains[others] + moves.gains[first]
        fits = (changed[:, 1] < -_EPSILON) & (gain >= -room)
        fits &= (count + changed[:, 0] <= 1) & (count + changed[:, 0] >= least)
        if fits.any():
            rates = changed[fits, 1] / np.maximum(-gain[fits], _EPSILON * max(1, abs(floor)))
            best = int(np.argmin(rates))
            rated.append((float(rates[best]), first, int(others[fits][best])))
    for _, first, second in sorted(rated)[:_TRIALS]:
        trial = state.copy()
        for move in (first, second):
            if moves.owner[move] >= 0:
                trial.move(int(moves.owner[move]), int(moves.entry[move]))
        after, faster = trial.costs
        if least <= after <= 1 and faster < latency - _EPSILON and trial.value >= floor:
            yield trial


@dataclass(frozen=True)
class _Moves:
    """What single groups may do next, and what each move changes by itself; the first is none."""

    owner: np.ndarray
    entry: np.ndarray
    gains: Numbers
    """Shape ``(moves,)``."""
    changes: Numbers
    """Of count and latency, as fractions of their bounds, shape ``(moves, 2)``."""

    @classmethod
    def of(cls, state: State) -> _Moves:
        owner, entry = [np.array([-1])], [np.array([0])]
        gains, changes = [np.zeros(1)], [np.zeros((1, 2))]
        for group, menu in enumerate(state.problem.menus):
            here = int(state.choice[group])
            near = np.arange(max(0, here - _STEPS), min(len(menu.counts), here + _STEPS + 1))
            near = near[near != here]
            owner.append(np.full(len(near), group))
            entry.append(near)
            gains.append(state.gains(group)[near])
            changes.append(state.changes(group)[near])
        return cls(*(np.concatenate(parts) for parts in (owner, entry, gains, changes)))

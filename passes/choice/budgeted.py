"""Selection under joint bounds: budgets for the solver, and what its choice means for the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from irprune import additive
from irprune.cost import CostModel
from irprune.passes.choice.bound import upper_bound
from irprune.passes.choice.fastest import Start, hastened, uniform
from irprune.passes.choice.offer import Offer
from irprune.passes.choice.problem import Budget, Lengths, Numbers, Problem, State, menus
from irprune.passes.choice.selection import Candidate, Counts, Selection
from irprune.passes.choice.solver import Solution, nearby, solve
from irprune.passes.choice.targets import What
from irprune.plan import Mask
from irprune.protocols import AdditiveCost, DeviceCost

Worth = Literal["log", "sum"]
Bounds = Mapping[What, float]

_MOST_ENTRIES = 128
"""Menus are thinned to so many widths."""
_LEAST_SHARE = 1e-3
"""A group that loses everything counts as if it kept this share, where worth is a logarithm."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Choice:
    """A choice within bounds and what it means."""

    keep: Mask
    """Kept classes, shape ``(classes,)``."""
    solution: Solution
    candidates: Sequence[Candidate]
    costs: Mapping[str, float]
    """Exact amounts by name; the latency is predicted."""

    @property
    def counts(self) -> Counts:
        """Return the kept count of each candidate."""
        state = self.solution.state
        return state.problem.counts(state.choice)

    @cached_property
    def kept_importance(self) -> float:
        """Return the share of the importance on offer that is kept."""
        pairs = list(zip(self.candidates, self.counts, strict=True))
        totals = [_totals(candidate) for candidate, _ in pairs]
        kept = sum(t[count] for t, (_, count) in zip(totals, pairs, strict=True))
        return float(kept / max(sum(t[-1] for t in totals), 1e-300))

    @cached_property
    def gap(self) -> float:
        """Return how much better the best choice could be at most, as a share of the range.

        The range is from the least to the most that could be kept without bounds.
        """
        problem, state = self.solution.state.problem, self.solution.state
        low, high = (sum(float(menu.values[entry]) for menu in problem.menus) for entry in (0, -1))
        if high <= low:
            return 0.0
        best = min(high, upper_bound(problem, self.solution.prices))
        return max(0.0, best - state.value) / (high - low)


class Budgeted:
    """Chooses widths of an offer under bounds.

    Args:
        offer: what may be chosen.
        graph: the graph to prune; `model` counts its costs.
        device: predicts its latency; None where no latency is bounded.
        worth: what a group's kept share is worth: itself (``sum``), or its logarithm times the
            importance of the group (``log``), so that a share is dearer the less is left.
    """

    def __init__(
        self, offer: Offer, model: CostModel, device: DeviceCost | None, worth: Worth
    ) -> None:
        self.offer, self.device = offer, device
        self._model, self._worth = model, worth
        self._memory = additive.Memory(model, offer.channels)
        self._peaks: list[int] = []
        self.counted: dict[What, AdditiveCost] = {
            "macs": additive.macs(model, offer.channels),
            "params": additive.params(model, offer.channels),
        }
        if device is not None:
            self.counted["latency"] = device

    @cached_property
    def whole(self) -> Mapping[str, float]:
        """Return the costs of the graph as it stands."""
        return self.costs(self.offer.channels.lengths(self.offer.alive))

    def costs(self, lengths: Lengths) -> dict[str, float]:
        """Return every cost at given axis lengths."""
        found = {str(what): total(cost, lengths) for what, cost in self.counted.items()}
        return {**found, "memory": self._memory.worst(self._size(lengths))[1]}

    def choose(
        self, bounds: Bounds, align: int | None, near: Choice | None = None
    ) -> Choice | None:
        """Return the best choice found within bounds, or None where the least is too much.

        With `align` None, widths are those that the device rewards. `near` asks for a choice that
        differs from another by few moves.
        """

        def attempt() -> Choice | None:
            while True:
                made = self._solved(bounds, align, near)
                if made is None or all(
                    made.costs[w] <= b * (1 + _ROUNDING) for w, b in bounds.items()
                ):
                    return made
                lengths = self.offer.channels.lengths(made.keep)
                position, needed = self._memory.worst(self._size(lengths))
                fits = "memory" not in bounds or needed <= bounds["memory"] * (1 + _ROUNDING)
                if fits or position in self._peaks:
                    return None  # an axis got a class back that it cannot be without
                self._peaks.append(position)

        return self._settled(attempt)

    def fastest(self, what: What, bound: float, align: int | None, start: Start) -> Choice | None:
        """Return the fastest choice found of a count, worth no less than uniform pruning to it.

        None where the least is too much, or the start worth too little. `Choice.gap` says how much
        more it could be worth.
        """

        def attempt() -> Choice | None:
            best = self._solved({what: bound}, align, None)
            if best is None:
                return None
            limits: Bounds = {what: bound, "latency": self.whole["latency"]}
            _, every = self._problem({what: bound}, align or 1)
            candidates, problem = self._problem(limits, align)
            floor = uniform(every).value
            begin = start(State(problem, best.solution.state.choice), floor)
            if begin is None:
                return None
            prices = np.append(best.solution.prices, 0.0)
            return self._made(Solution(hastened(begin, floor), prices), candidates)

        return self._settled(attempt)

    def least(self, bounds: Bounds, align: int | None) -> Choice:
        """Return the choice that keeps least, whether it is within the bounds or not."""
        candidates, problem = self._problem(bounds, align)
        state = State(problem, problem.least())
        return self._made(Solution(state, np.zeros(len(problem.budgets))), candidates)

    def _settled(self, attempt: Callable[[], Choice | None]) -> Choice | None:
        empty: tuple[Mask, Sequence[Candidate]] = (self.offer.alive, ())
        return self.offer.settled(
            attempt, lambda made: empty if made is None else (made.keep, made.candidates)
        )

    def _solved(self, bounds: Bounds, align: int | None, near: Choice | None) -> Choice | None:
        candidates, problem = self._problem(bounds, align)
        solution = solve(problem) if near is None else nearby(problem, near.solution)
        return None if solution is None else self._made(solution, candidates)

    def _made(self, solution: Solution, candidates: Sequence[Candidate]) -> Choice:
        offer, state = self.offer, solution.state
        selection = Selection(offer.channels, candidates, offer.alive, offer.fixed)
        keep = selection.keep(state.problem.counts(state.choice))
        return Choice(keep, solution, candidates, self.costs(offer.channels.lengths(keep)))

    def _problem(self, bounds: Bounds, align: int | None) -> tuple[list[Candidate], Problem]:
        candidates = self.offer.candidates(align or 1)
        useful = [self._useful(c) if align is None else c.allowed for c in candidates]
        values = [_worth(candidate, self._worth) for candidate in candidates]
        made, fixed = menus(
            self.offer.channels, candidates, self.offer.alive, [_thin(u) for u in useful], values
        )
        budgets = [
            Budget(self.counted[what], bound) for what, bound in bounds.items() if what != "memory"
        ]
        if "memory" in bounds:
            budgets += [Budget(self._memory.at(p), bounds["memory"]) for p in self._positions]
        return candidates, Problem(made, fixed, budgets)

    @property
    def _positions(self) -> list[int]:
        if not self._peaks:
            lengths = self.offer.channels.lengths(self.offer.alive)
            self._peaks.append(self._memory.worst(self._size(lengths))[0])
        return self._peaks

    def _useful(self, candidate: Candidate) -> Counts:
        """Return the allowed counts at which the axis of the group has a length worth having."""
        assert self.device is not None, "there are useful widths on a device only"
        site = candidate.group.producers[0]
        number = self.offer.channels.unique_axes[2].get((site.value, site.axis))
        if number is None or candidate.locked:
            return candidate.allowed
        alive = len(candidate.alive) * candidate.multiplicity
        whole = int(self.offer.channels.lengths(self.offer.alive)[number])
        lengths = candidate.allowed * candidate.multiplicity + (whole - alive)
        good = np.isin(lengths, self.device.useful(number))
        good[-1] = True
        good |= candidate.allowed == 0
        return candidate.allowed[good]

    def _size(self, lengths: Lengths) -> Any:
        index, table = self.offer.channels.unique_axes[2], lengths.tolist()

        def size(value: ir.Value, axis: int) -> int:
            number = index.get((value, axis))
            return self._model.full_size(value, axis) if number is None else table[number]

        return size


def total(cost: AdditiveCost, lengths: Lengths) -> float:
    """Return a cost at given axis lengths."""
    return cost.constant + sum(
        float(cost.terms(number, lengths[None, list(kernel.axes)])[0])
        for number, kernel in enumerate(cost.kernels)
    )


def _totals(candidate: Candidate) -> Numbers:
    """Return the importance kept at each count, shape ``(alive + 1,)``."""
    kept = np.concatenate([[0.0], np.cumsum(candidate.scores[::-1])])
    return kept * candidate.group.rows


def _worth(candidate: Candidate, how: Worth) -> Numbers:
    totals = _totals(candidate)
    if how == "sum" or totals[-1] <= 0:
        return totals
    shares = np.maximum(totals / totals[-1], _LEAST_SHARE)
    return np.asarray(totals[-1] * np.log(shares))


def _thin(counts: Counts) -> Counts:
    """Return at most so many of the counts, both ends included."""
    if len(counts) <= _MOST_ENTRIES:
        return counts
    places = np.linspace(0, len(counts) - 1, _MOST_ENTRIES).round().astype(np.int64)
    thinned: Counts = counts[np.unique(places)]
    return thinned

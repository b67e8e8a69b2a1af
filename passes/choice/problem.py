"""What a width selection chooses from, and what each choice costs: evaluated move by move.

A *menu* lists the kept counts of one group, the value of each and how long it makes every axis
that the group touches. Costs are sums over kernels (`irprune.protocols.AdditiveCost`) that depend
on a few axis lengths each, so a move changes only the kernels that its group touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irprune.channels import Channels
from irprune.passes.choice.selection import Candidate, Counts
from irprune.plan import Mask
from irprune.protocols import AdditiveCost

Lengths = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Menu:
    """The kept counts that one group may have, ascending."""

    counts: Counts
    values: Numbers
    """What each count is worth, not decreasing, shape ``(entries,)``."""
    axes: Lengths
    """Numbers of the axes (`Channels.unique_axes`) that the group touches, shape ``(axes,)``."""
    added: Lengths
    """Positions that the group keeps of each axis, shape ``(entries, axes)``."""


@dataclass(frozen=True)
class Budget:
    """A cost and its upper bound."""

    cost: AdditiveCost
    bound: float


@dataclass(frozen=True)
class Problem:
    """Choose one entry of every menu: most value, every cost within its bound.

    ``fixed`` is the length of each axis without any of the groups, shape ``(axes,)``.
    """

    menus: Sequence[Menu]
    fixed: Lengths
    budgets: Sequence[Budget]

    def counts(self, choice: Sequence[int] | Counts) -> Counts:
        """Return the kept count of every group."""
        pairs = zip(self.menus, choice, strict=True)
        return np.array([menu.counts[entry] for menu, entry in pairs], np.int64)

    def full(self) -> Counts:
        """Return the choice that keeps most."""
        return np.array([len(menu.counts) - 1 for menu in self.menus], np.int64)

    def least(self) -> Counts:
        """Return the choice that keeps least."""
        return np.zeros(len(self.menus), np.int64)


def menus(
    channels: Channels,
    candidates: Sequence[Candidate],
    keep: Mask,
    counts: Sequence[Counts],
    values: Sequence[Numbers],
) -> tuple[list[Menu], Lengths]:
    """Return a menu per candidate of given counts and values, and the lengths without any of them.

    ``values[k]`` has shape ``(alive + 1,)``: the value of each kept count of candidate ``k``.
    """
    flat, starts, _ = channels.unique_axes
    axis_of = np.repeat(np.arange(len(starts)), np.diff([*starts, len(flat)]))
    owner = np.full(channels.count, -1, np.int64)
    line = np.zeros(channels.count, np.int64)
    for number, candidate in enumerate(candidates):
        owner[candidate.alive] = number
        line[candidate.alive] = np.arange(len(candidate.alive))[:, None]
    position = np.flatnonzero((owner[flat] >= 0) & keep[flat])
    position = position[np.argsort(owner[flat[position]], kind="stable")]
    bounds = np.searchsorted(owner[flat[position]], np.arange(len(candidates) + 1))
    rest = keep & (owner < 0)
    made = []
    for number, candidate in enumerate(candidates):
        mine = position[bounds[number] : bounds[number + 1]]
        axes, place = np.unique(axis_of[mine], return_inverse=True)
        alive = len(candidate.alive)
        gone = np.zeros((alive + 1, len(axes)), np.int64)  # by lines removed, least important first
        np.add.at(gone, (line[flat[mine]] + 1, place), 1)
        gone = np.cumsum(gone, axis=0)
        added = gone[-1] - gone[alive - counts[number]]
        made.append(Menu(counts[number], values[number][counts[number]], axes, added))
    return made, channels.lengths(rest)


class State:
    """A choice, its cost and its value; what a move would change is computed once and kept.

    Costs are fractions of their bounds, shape ``(budgets,)``: a choice is feasible up to 1.
    """

    def __init__(self, problem: Problem, choice: Counts) -> None:
        self.problem = problem
        self.choice = choice.copy()
        self.lengths = problem.fixed.copy()
        for menu, entry in zip(problem.menus, choice, strict=True):
            self.lengths[menu.axes] += menu.added[entry]
        self._touched = _Touched(problem)
        self._terms = [
            np.array(
                [
                    float(budget.cost.terms(number, self.lengths[None, list(kernel.axes)])[0])
                    for number, kernel in enumerate(budget.cost.kernels)
                ]
            )
            / budget.bound
            for budget in problem.budgets
        ]
        self._deltas: dict[int, Numbers] = {}

    @property
    def costs(self) -> Numbers:
        """Return every cost as a fraction of its bound."""
        return np.array(
            [
                terms.sum() + budget.cost.constant / budget.bound
                for terms, budget in zip(self._terms, self.problem.budgets, strict=True)
            ]
        )

    @property
    def value(self) -> float:
        """Return what the choice is worth."""
        pairs = zip(self.problem.menus, self.choice, strict=True)
        return float(sum(menu.values[entry] for menu, entry in pairs))

    @property
    def feasible(self) -> bool:
        """Return whether every cost is within its bound."""
        return bool((self.costs <= 1 + 1e-12).all())

    def changes(self, group: int) -> Numbers:
        """Return how each entry of a menu would change the costs, ``(entries, budgets)``."""
        known = self._deltas.get(group)
        if known is None:
            budgets = range(len(self.problem.budgets))
            known = np.stack([self._trial(group, number) for number in budgets], axis=1)
            known -= known[self.choice[group]].copy()
            self._deltas[group] = known
        return known

    def gains(self, group: int) -> Numbers:
        """Return how each entry of a menu would change the value, ``(entries,)``."""
        values = self.problem.menus[group].values
        return np.asarray(values - values[self.choice[group]])

    def move(self, group: int, entry: int) -> None:
        """Choose another entry of a menu."""
        menu, before = self.problem.menus[group], self.choice[group]
        self.lengths[menu.axes] += menu.added[entry] - menu.added[before]
        self.choice[group] = entry
        near = {group}
        for number, budget in enumerate(self.problem.budgets):
            for kernel, axes, _ in self._touched.kernels[group][number]:
                term = budget.cost.terms(kernel, self.lengths[None, axes])[0]
                self._terms[number][kernel] = float(term) / budget.bound
                near |= self._touched.groups[number][kernel]
        for other in near:
            self._deltas.pop(other, None)

    def copy(self) -> State:
        """Return a state that moves by itself."""
        other = object.__new__(State)
        other.problem, other._touched = self.problem, self._touched
        other.choice, other.lengths = self.choice.copy(), self.lengths.copy()
        other._terms = [terms.copy() for terms in self._terms]
        other._deltas = dict(self._deltas)
        return other

    def _trial(self, group: int, number: int) -> Numbers:
        """Return what the kernels that a group touches cost at each entry of its menu."""
        budget, entry = self.problem.budgets[number], self.choice[group]
        total = np.zeros(len(self.problem.menus[group].counts))
        for kernel, axes, added in self._touched.kernels[group][number]:
            total += budget.cost.terms(kernel, self.lengths[axes] - added[entry] + added)
        return np.asarray(total / budget.bound)


class _Touched:
    """Which kernels depend on which groups.

    ``kernels[group][budget]`` lists kernels, their axes, and how much of each axis every entry of
    the group's menu keeps, ``(entries, axes)``; ``groups[budget][kernel]`` is the way back.
    """

    def __init__(self, problem: Problem) -> None:
        menus_of: dict[int, list[int]] = {}
        for group, menu in enumerate(problem.menus):
            for axis in menu.axes.tolist():
                menus_of.setdefault(axis, []).append(group)
        self.kernels: list[list[list[tuple[int, Lengths, Lengths]]]] = [
            [[] for _ in problem.budgets] for _ in problem.menus
        ]
        self.groups: list[list[set[int]]] = []
        for number, budget in enumerate(problem.budgets):
            near = []
            for kernel, about in enumerate(budget.cost.kernels):
                axes = np.array(about.axes, np.int64)
                groups = {group for axis in about.axes for group in menus_of.get(axis, ())}
                for group in groups:
                    added = _columns(problem.menus[group], axes)
                    self.kernels[group][number].append((kernel, axes, added))
                near.append(groups)
            self.groups.append(near)


def _columns(menu: Menu, axes: Lengths) -> Lengths:
    """Return how much of each of some axes the entries of a menu keep, ``(entries, axes)``."""
    place = np.minimum(np.searchsorted(menu.axes, axes), len(menu.axes) - 1)
    found: Lengths = np.where(menu.axes[place] == axes, menu.added[:, place], 0)
    return found

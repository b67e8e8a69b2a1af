"""Widths traded for speed at a fixed count: really faster, no larger, worth no less than asked."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from strategies import seeds

from irprune.passes.choice.fastest import from_uniform, hastened, uniform
from irprune.passes.choice.problem import Budget, Menu, Problem, State
from irprune.passes.choice.solver import solve
from irprune.protocols import Kernel


class Weighted:
    """A cost of neighbours' products, each times a weight."""

    def __init__(self, weights: np.ndarray) -> None:
        self.kernels = [Kernel(f"k{n}", (n, n + 1)) for n in range(len(weights))]
        self.weights, self.constant = weights, 0.0

    def terms(self, kernel: int, lengths: np.ndarray) -> np.ndarray:
        return np.asarray(lengths.prod(axis=1) * self.weights[kernel], np.float64)


def _problem(seed: int) -> Problem:
    """A chain of layers whose latency per count differs; half the count, all of the latency."""
    rng = np.random.default_rng(seed)
    menus = []
    for number in range(4):
        counts = np.arange(1, 25)
        values = 30 * rng.random() * np.log(counts)
        menus.append(Menu(counts, values, np.array([number]), counts[:, None]))
    fixed = np.zeros(4, np.int64)
    costs = [Weighted(np.ones(3)), Weighted(rng.uniform(0.2, 5, 3))]
    whole = Problem(menus, fixed, [Budget(cost, 1.0) for cost in costs])
    count, latency = State(whole, whole.full()).costs
    return Problem(menus, fixed, [Budget(costs[0], count / 2), Budget(costs[1], latency)])


@given(seeds)
def test_the_traded_choice_is_faster_and_keeps_count_and_floor(seed: int) -> None:
    problem = _problem(seed)
    found = solve(Problem(problem.menus, problem.fixed, problem.budgets[:1]))
    assert found is not None
    start = State(problem, found.state.choice)
    floor = uniform(problem).value
    assert floor <= start.value + 1e-9
    fast = hastened(start, floor)
    assert fast.costs[1] <= start.costs[1]
    assert min(0.99, start.costs[0]) <= fast.costs[0] <= 1
    assert fast.value >= floor


def test_trades_find_speed_where_there_is_some() -> None:
    gained = []
    for seed in range(20):
        problem = _problem(seed)
        found = solve(Problem(problem.menus, problem.fixed, problem.budgets[:1]))
        assert found is not None
        start = State(problem, found.state.choice)
        fast = hastened(start, uniform(problem).value)
        gained.append(fast.costs[1] / start.costs[1])
    assert np.median(gained) < 0.95


@given(seeds)
def test_uniform_keeps_the_same_share_of_every_group_and_fits(seed: int) -> None:
    problem = _problem(seed)
    state = uniform(problem)
    assert state.feasible
    assert len(set(state.choice.tolist())) == 1
    more = State(problem, np.minimum(state.choice + 1, problem.full()))
    assert not more.feasible


def test_trades_may_begin_at_uniform_pruning_grown_to_the_bound() -> None:
    begun = 0
    for seed in range(20):
        problem = _problem(seed)
        even = uniform(problem)
        start = from_uniform(State(problem, problem.least()), even.value)
        assert start is not None
        assert start.feasible
        assert start.value >= even.value
        assert from_uniform(even, start.value + 1) is None
        begun += start.value > even.value
    assert begun

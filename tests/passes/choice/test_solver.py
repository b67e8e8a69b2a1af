"""Choosing widths under bounds: exact costs of moves, feasible choices, and an honest bound."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from irprune.passes.choice.bound import upper_bound
from irprune.passes.choice.problem import Budget, Menu, Problem, State
from irprune.passes.choice.solver import nearby, solve
from irprune.protocols import Kernel


class Products:
    """A cost whose kernels are products of lengths, each rounded up to a step."""

    def __init__(self, kernels: list[tuple[int, ...]], step: int = 1, constant: float = 0) -> None:
        self.kernels = [Kernel(f"k{n}", axes) for n, axes in enumerate(kernels)]
        self.step, self.constant = step, constant

    def terms(self, kernel: int, lengths: np.ndarray) -> np.ndarray:
        rounded = -(-lengths // self.step) * self.step
        return np.asarray(rounded.prod(axis=1), np.float64)


def _chain(seed: int, groups: int, entries: int, share: float, step: int = 1) -> Problem:
    """A chain of layers, and one more that reads all of them side by side."""
    rng = np.random.default_rng(seed)
    menus = []
    for number in range(groups):
        counts = np.sort(rng.choice(np.arange(1, 25), entries, replace=False))
        added = np.stack([counts, counts], axis=1)
        axes = np.array([number, groups])
        values = np.cumsum(rng.random(entries))
        menus.append(Menu(counts, values, axes, added))
    fixed = np.zeros(groups + 1, np.int64)
    fixed[groups] = 3
    pairs = [(k, k + 1) for k in range(groups - 1)]
    cost = Products([*pairs, (groups,), (0,), (groups, 0), ()], step, constant=5)
    problem = Problem(menus, fixed, [Budget(cost, 1.0)])
    full = State(problem, problem.full()).costs[0]
    return Problem(menus, fixed, [Budget(cost, share * full)])


def _best(problem: Problem) -> float | None:
    """The value of the best choice, by trying all of them."""
    values = [
        state.value
        for choice in product(*(range(len(menu.counts)) for menu in problem.menus))
        if (state := State(problem, np.array(choice))).feasible
    ]
    return max(values, default=None)


@given(seed=seeds, step=st.sampled_from([1, 8]))
def test_a_move_costs_what_the_new_state_costs(seed: int, step: int) -> None:
    problem = _chain(seed, 4, 5, 0.5, step)
    rng = np.random.default_rng(seed)
    state = State(problem, problem.full())
    for _ in range(6):
        group = int(rng.integers(len(problem.menus)))
        entry = int(rng.integers(len(problem.menus[group].counts)))
        costs, value = state.costs, state.value
        change, gain = state.changes(group)[entry].copy(), state.gains(group)[entry]
        state.move(group, entry)
        fresh = State(problem, state.choice)
        np.testing.assert_allclose(state.costs, fresh.costs)
        np.testing.assert_allclose(costs + change, fresh.costs)
        assert value + gain == pytest.approx(fresh.value)
        for other in range(len(problem.menus)):
            np.testing.assert_allclose(state.changes(other), fresh.changes(other), atol=1e-12)


@given(seed=seeds, share=st.floats(0.05, 1), step=st.sampled_from([1, 8]))
@settings(max_examples=30)
def test_choices_are_feasible_good_and_never_above_the_bound(
    seed: int, share: float, step: int
) -> None:
    problem = _chain(seed, 4, 4, share, step)
    best, solution = _best(problem), solve(problem)
    assert (solution is None) == (best is None)
    if solution is None or best is None:
        return
    assert solution.state.feasible
    assert solution.state.value <= best + 1e-9
    least = State(problem, problem.least()).value
    assert solution.state.value >= least + 0.8 * (best - least) - 1e-9
    assert upper_bound(problem, solution.prices) >= best - 1e-9


def test_the_solver_is_near_the_best_on_the_whole() -> None:
    shares = []
    for seed in range(40):
        problem = _chain(seed, 4, 4, 0.5)
        best, solution = _best(problem), solve(problem)
        if best is not None and solution is not None:
            shares.append(solution.state.value / best)
    assert len(shares) > 30
    assert np.mean(shares) > 0.985


@given(seed=seeds)
@settings(max_examples=20)
def test_joint_bounds_all_hold(seed: int) -> None:
    one = _chain(seed, 4, 5, 0.6)
    other = Products([(k,) for k in range(4)])
    full = float(sum(menu.counts[-1] for menu in one.menus))
    problem = Problem(one.menus, one.fixed, [*one.budgets, Budget(other, 0.6 * full)])
    best, solution = _best(problem), solve(problem)
    assert (solution is None) == (best is None)
    if solution is None or best is None:
        return
    assert solution.state.feasible
    assert solution.state.value <= best + 1e-9
    assert upper_bound(problem, solution.prices) >= best - 1e-9


@given(seed=seeds, share=st.floats(0.3, 0.8))
@settings(max_examples=20)
def test_a_choice_near_another_obeys_the_new_bound(seed: int, share: float) -> None:
    problem = _chain(seed, 5, 5, 0.7)
    solution = solve(problem)
    if solution is None:
        return
    cost = problem.budgets[0].cost
    tighter = Problem(
        problem.menus, problem.fixed, [Budget(cost, share * problem.budgets[0].bound)]
    )
    found = nearby(tighter, solution)
    if State(tighter, tighter.least()).feasible:
        assert found is not None
        assert found.state.feasible


def test_what_fits_as_a_whole_stays_whole() -> None:
    problem = _chain(0, 4, 5, 1.0)
    solution = solve(problem)
    assert solution is not None
    assert solution.state.choice.tolist() == problem.full().tolist()
    assert upper_bound(problem, solution.prices) == pytest.approx(solution.state.value)

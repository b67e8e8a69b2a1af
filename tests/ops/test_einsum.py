"""Einsum: shared letters tie, summed letters are contractions, odd equations stay whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, macs, seeds, ties, why

from irprune.channels import analyse


def _product(net: Net, equation: str, x: str, *shape: int) -> str:
    return net.op("Einsum", x, net.weight(*shape, name="w"), name="c", equation=equation)


def test_letters_tie_and_the_weight_alone_creates_channels() -> None:
    net = Net()
    _product(net, "bnd, dhe -> bnhe", net.tokens(3), 3, 2, 4)
    net.consume("c", 4, 3, 4)
    model = net.model()
    assert ties(model, ("p.w", 1), ("w", 0)) == [[1, 2, 3]] * 2
    assert ties(model, ("w", 1), ("c", 2)) == [[0, 0]] * 2
    assert ties(model, ("w", 2), ("c", 3), ("y.w", 0)) == [[1, 2, 3, 4]] * 3
    sites = [(site.value.name, site.axis) for site in analyse(model.ir.graph).producers]
    assert sites == [("p.w", 1), ("w", 1), ("w", 2), ("y.w", 1)]


@pytest.mark.parametrize("equation", ["nd,dk", "nd,dk->nk", "...d,dk", "...d,dk->...k"])
def test_an_output_may_be_implicit(equation: str) -> None:
    net = Net()
    x = net.linear(net.input(3, 2), 2, 4, name="p")
    _product(net, equation, x, 4, 3)
    model = net.model("c")
    assert ties(model, ("p.w", 1), ("w", 0)) == [[1, 2, 3, 4]] * 2
    assert ties(model, ("c", 1)) == [[0] * 3]
    for seed in range(3):
        check_random_plan(model, seed)


def test_a_stretched_position_serves_all_and_stays() -> None:
    net = Net()
    _product(net, "bnd,bkd->bnk", net.tokens(4), 1, 3, 1)
    model = net.model("c")
    assert ties(model, ("p.w", 1)) == [[1, 2, 3, 4]]
    assert why(model, "w", 2).startswith("is broadcast along a longer axis")
    for seed in range(3):
        check_random_plan(model, seed)


def test_a_diagonal_stays_whole() -> None:
    net = Net()
    net.op("Einsum", net.linear(net.input(2, 2), 2, 3, name="p"), name="c", equation="ij->ij")
    square = net.op("MatMul", net.op("Transpose", "c", perm=[1, 0]), "c")
    net.op("Einsum", square, name="y", equation="ii->i")
    assert why(net.model(), "p.w", 1).startswith("its equation repeats a letter")


def test_macs() -> None:
    net = Net()
    net.op("Einsum", net.input(2, 3, 4), net.weight(1, 4, 5), name="y", equation="abc,acd->abd")
    assert macs(net.model()) == 2 * 3 * 4 * 5
    net = Net()
    net.op("Einsum", net.input(2, 3), name="y", equation="ij->ji")
    assert macs(net.model()) == 0


@given(
    equation=st.sampled_from(
        ["bhid,bhjd->bhij", "bhid,bhjd->hbji", "...id,...jd->...ij", "bhid,bhjd->bij"]
    ),
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    batch=st.integers(1, 2),
    seed=seeds,
)
def test_scores_stay_exact(equation: str, heads: int, width: int, batch: int, seed: int) -> None:
    net = Net(seed=seed)
    x = net.input(batch, heads, 3, 2)
    q, k = (net.linear(x, 2, width, name=n) for n in "qk")
    net.op("Einsum", q, k, name="y", equation=equation)
    trial = check_random_plan(net.model(), seed)
    assert all(all(row) for row in ties(trial.model, ("q.w", 1), ("k.w", 1)))


@given(
    equation=st.sampled_from(["bnd,dke->bnke", "bnd,dke->bken", "bnd,dke->bek", "bnd,dke->be"]),
    width=st.integers(1, 4),
    outer=st.integers(1, 4),
    batch=batches,
    seed=seeds,
)
def test_projections_stay_exact(
    equation: str, width: int, outer: int, batch: Dim, seed: int
) -> None:
    net = Net(seed=seed)
    _product(net, equation, net.tokens(width, batch), width, 2, outer)
    rank = len(equation.partition("->")[2])
    net.consume("c", rank, equation.partition("->")[2].index("e"), outer)
    trial = check_random_plan(net.model(), seed)
    assert all(all(row) for row in ties(trial.model, ("p.w", 1), ("w", 0), ("w", 2)))


@given(width=st.integers(1, 4), batch=batches, seed=seeds)
def test_three_operands_stay_exact(width: int, batch: Dim, seed: int) -> None:
    net = Net(seed=seed)
    x, w = net.tokens(width, batch), net.weight(width, 3, name="w")
    net.op("Einsum", x, w, net.weight(width, name="s"), name="y", equation="bnd,de,d->bne")
    trial = check_random_plan(net.model(), seed)
    assert all(all(row) for row in ties(trial.model, ("p.w", 1), ("w", 0), ("s", 0)))

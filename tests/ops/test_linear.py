"""Gemm and MatMul: classes, exactness under random plans, and cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, macs, seeds, ties, why

from irprune.channels import analyse

FORMS = ["none", "scalar", "vector", "one", "row", "matrix", "column"]
bias_and_opset = st.tuples(st.sampled_from(FORMS), st.sampled_from([8, 9, 11, 13, 22])).filter(
    lambda drawn: drawn[0] != "none" or drawn[1] >= 11
)


def _bias(net: Net, form: str, rows: int, columns: int) -> list[str]:
    shapes: dict[str, tuple[int, ...]] = {
        "scalar": (),
        "vector": (columns,),
        "one": (1,),
        "row": (1, columns),
        "matrix": (rows, columns),
        "column": (rows, 1),
    }
    return [] if form == "none" else [net.weight(*shapes[form], name="b")]


def test_gemm_ties_both_inner_axes_and_the_bias() -> None:
    net = Net()
    x = net.linear(net.input("N", 2), 2, 3, name="p")
    w, b = net.weight(4, 3, name="w"), net.weight(4, name="b")
    net.op("Gemm", x, w, b, name="c", transB=1)
    net.linear("c", 4, 2, name="y")
    model = net.model()
    assert ties(model, ("p.w", 1), ("w", 1)) == [[1, 2, 3]] * 2
    assert ties(model, ("w", 0), ("b", 0), ("c", 1), ("y.w", 0)) == [[1, 2, 3, 4]] * 4


def test_gemm_keeps_a_bias_position_that_serves_many_columns() -> None:
    net = Net()
    x = net.linear(net.input(2, 2), 2, 3, name="p")
    net.op("Gemm", x, net.weight(3, 4, name="w"), net.weight(2, 1, name="b"), name="c")
    net.linear("c", 4, 2, name="y")
    model = net.model()
    assert why(model, "b", 1).startswith("is broadcast along a longer axis")
    assert ties(model, ("b", 0), ("w", 1)) == [[0, 0], [1, 2, 3, 4]]


def test_matmul_with_the_weight_on_the_left_creates_rows() -> None:
    net = Net()
    x = net.op("Transpose", net.tokens(3), perm=[0, 2, 1])
    net.op("MatMul", net.weight(4, 3, name="w"), x, name="c")
    net.consume("c", 3, 1, 4)
    model = net.model()
    assert ties(model, ("p.w", 1), ("w", 1)) == [[1, 2, 3]] * 2
    assert ties(model, ("w", 0), ("c", 1), ("y.w", 1)) == [[1, 2, 3, 4]] * 3


def test_matmul_of_two_activations_contracts_and_passes_columns() -> None:
    net = Net()
    x = net.input("N", 3, 2)
    q, k = net.linear(x, 2, 4, name="q"), net.linear(x, 2, 4, name="k")
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1]), name="s")
    net.op("MatMul", scores, net.linear(x, 2, 5, name="v"), name="c")
    net.consume("c", 3, 2, 5)
    model = net.model()
    assert ties(model, ("q.w", 1), ("k.w", 1)) == [[1, 2, 3, 4]] * 2
    assert ties(model, ("v.w", 1), ("c", 2), ("y.w", 0)) == [[1, 2, 3, 4, 5]] * 3
    assert ties(model, ("s", 1), ("s", 2)) == [[0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("kind", "left", "attributes", "made"),
    [
        ("MatMul", False, {}, [("w", 1)]),
        ("MatMul", True, {}, [("w", 0)]),
        ("Gemm", False, {}, [("w", 1)]),
        ("Gemm", False, {"transB": 1}, [("w", 0)]),
        ("Gemm", True, {}, [("w", 0)]),
        ("Gemm", True, {"transA": 1}, [("w", 1)]),
    ],
)
def test_the_axis_that_is_not_summed_away_creates_channels(
    kind: str, left: bool, attributes: dict[str, int], made: list[tuple[str, int]]
) -> None:
    net = Net()
    x, w = net.input(4, 4), net.weight(4, 4, name="w")
    net.op(kind, *((w, x) if left else (x, w)), name="y", **attributes)
    channels = analyse(net.model().ir.graph)
    assert [(site.value.name, site.axis) for site in channels.producers] == made
    (summed,) = channels.contractions
    assert summed.value.name == "x"


def test_a_vector_or_an_activation_creates_no_channels() -> None:
    net = Net()
    x = net.input(4, 4)
    net.op("MatMul", net.op("MatMul", x, x), net.weight(4, name="w"), name="y")
    assert analyse(net.model().ir.graph).producers == []


def test_macs() -> None:
    net = Net()
    x = net.input(2, 3)
    net.op("Gemm", net.weight(3, 5), x, name="y", transA=1, transB=1)
    assert macs(net.model()) == 5 * 3 * 2
    net = Net()
    net.op("MatMul", net.input(4, 1, 2, 3), net.weight(7, 3, 5), name="y")
    assert macs(net.model()) == 4 * 7 * 2 * 3 * 5
    net = Net()
    net.op("MatMul", net.input(4, 2, 3), net.weight(3), name="y")
    assert macs(net.model()) == 4 * 2 * 3


@given(
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    left=st.booleans(),
    form=bias_and_opset,
    inner=st.integers(1, 6),
    outer=st.integers(1, 6),
    seed=seeds,
)
def test_random_gemms_stay_exact(
    trans_a: bool,
    trans_b: bool,
    left: bool,
    form: tuple[str, int],
    inner: int,
    outer: int,
    seed: int,
) -> None:
    bias, opset = form
    net = Net(opset, seed)
    x = net.linear(net.input(3, 2), 2, inner, name="p")
    inner_last = not trans_a if not left else trans_b
    x = x if inner_last else net.op("Transpose", x, perm=[1, 0])
    if left:
        w = net.weight(*((inner, outer) if trans_a else (outer, inner)), name="w")
    else:
        w = net.weight(*((outer, inner) if trans_b else (inner, outer)), name="w")
    rows, columns = (outer, 3) if left else (3, outer)
    operands = [w, x] if left else [x, w]
    net.op(
        "Gemm",
        *operands,
        *_bias(net, bias, rows, columns),
        name="c",
        transA=int(trans_a),
        transB=int(trans_b),
        alpha=0.5,
    )
    net.consume("c", 2, 0 if left else 1, outer)
    trial = check_random_plan(net.model(), seed)
    free = ties(trial.model, ("p.w", 1), ("c", 0 if left else 1))
    assert all(free[0])
    assert all(free[1])


@given(
    left=st.booleans(),
    lead=st.sampled_from([(), (3,), (2, 3), ("N", 3), ("N", "T")]),
    weight_lead=st.sampled_from([(), (3,), (1, 3)]),
    inner=st.integers(1, 6),
    outer=st.integers(1, 6),
    seed=seeds,
)
def test_random_matmuls_stay_exact(
    left: bool,
    lead: tuple[Dim, ...],
    weight_lead: tuple[int, ...],
    inner: int,
    outer: int,
    seed: int,
) -> None:
    net = Net(seed=seed)
    x = net.linear(net.input(*lead, 5, 2), 2, inner, name="p")
    rank = max(len(lead), len(weight_lead)) + 2
    if left:
        order = [*range(len(lead)), len(lead) + 1, len(lead)]
        x = net.op("Transpose", x, perm=order)
        net.op("MatMul", net.weight(*weight_lead, outer, inner, name="w"), x, name="c")
    else:
        net.op("MatMul", x, net.weight(*weight_lead, inner, outer, name="w"), name="c")
    net.consume("c", rank, rank - 2 if left else rank - 1, outer)
    trial = check_random_plan(net.model(), seed)
    (row,) = ties(trial.model, ("w", len(weight_lead) if left else len(weight_lead) + 1))
    assert all(row)


@pytest.mark.parametrize(
    ("first", "second"),
    [((4,), (4, 6)), ((4,), (2, 4, 6)), ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (4,))],
)
@given(seed=seeds, weight_left=st.booleans())
def test_matmuls_with_one_axis_stay_exact(
    first: tuple[int, ...], second: tuple[int, ...], seed: int, weight_left: bool
) -> None:
    net = Net(seed=seed)
    data, weight = (second, first) if weight_left else (first, second)
    x = net.op("Mul", net.input(*data), net.weight(*data, name="m"), name="x1")
    w = net.weight(*weight, name="w")
    net.op("MatMul", *((w, x) if weight_left else (x, w)), name="y")
    check_random_plan(net.model(), seed)


@given(heads=st.integers(1, 3), width=st.integers(1, 4), batch=batches, seed=seeds)
def test_products_of_activations_stay_exact(heads: int, width: int, batch: Dim, seed: int) -> None:
    """Attention without softmax: batch axes of several kinds, contracted and passed channels."""
    net = Net(seed=seed)
    x = net.input(batch, heads, 3, 2)
    q, k, v = (net.linear(x, 2, width, name=n) for n in "qkv")
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]), name="s")
    net.linear(net.op("MatMul", scores, v, name="c"), width, 2, name="y")
    trial = check_random_plan(net.model(), seed)
    free = ties(trial.model, ("q.w", 1), ("k.w", 1), ("v.w", 1))
    assert all(all(row) for row in free)

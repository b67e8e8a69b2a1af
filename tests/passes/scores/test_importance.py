"""Importance: scores of known weights, by hand and by definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from strategies import Net, seeds, value_of

from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.passes.scores.importance import Importance, normalized

FILTERS = np.array([[3, -4], [0, 1], [-2, 2], [0, 0]], np.float32)
READERS = np.array([[1, -1, 0, 5], [2, 0, 1, -5]], np.float32)


def _chain(filters: npt.NDArray[Any], readers: npt.NDArray[Any]) -> Model:
    """Two 1x1 convolutions: ``filters`` create channels, ``readers`` consume them."""
    net = Net()
    x = net.input(1, filters.shape[1], 2, 2)
    c = net.op("Conv", x, net.constant(filters[..., None, None], "a"), name="c")
    net.op("Conv", net.op("Relu", c), net.constant(readers[..., None, None], "b"), name="y")
    return net.model()


def _scores(
    model: Model,
    criterion: Any,
    members: Any = "producers",
    aggregate: Any = "sum",
    seed: int = 0,
    group: int = 0,
    tie: bool = True,
) -> list[float]:
    channels = analyse(model.ir.graph, tie=tie)
    importance = Importance(
        channels, criterion=criterion, members=members, aggregate=aggregate, seed=seed
    )
    scores = importance.of(coupled_groups(channels)[group])
    assert scores is not None
    return [round(float(score), 5) for score in scores]


@pytest.mark.parametrize(("criterion", "expected"), [("l1", [7, 1, 4, 0]), ("linf", [4, 1, 2, 0])])
def test_norms_of_the_filters(criterion: str, expected: list[float]) -> None:
    assert _scores(_chain(FILTERS, READERS), criterion) == expected


def test_l2_ranks_by_the_euclidean_norm() -> None:
    found = np.argsort(_scores(_chain(FILTERS, READERS), "l2"))
    assert found.tolist() == np.argsort(np.linalg.norm(FILTERS, axis=1)).tolist()


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ("producers", [7, 1, 4, 0]),
        ("consumers", [3, 1, 1, 10]),
        ("all", [10, 2, 5, 10]),
    ],
)
def test_members_say_whose_weights_count(members: str, expected: list[float]) -> None:
    assert _scores(_chain(FILTERS, READERS), "l1", members) == expected


@given(seed=seeds)
def test_fpgm_is_the_sum_of_distances(seed: int) -> None:
    filters = np.random.default_rng(seed).normal(size=(6, 5)).astype(np.float32)
    readers = np.ones((2, 6), np.float32)
    naive = [sum(np.linalg.norm(row - other) for other in filters) for row in filters]
    assert np.allclose(_scores(_chain(filters, readers), "fpgm"), naive, atol=1e-4)


def _residual() -> Model:
    """Two filters make each channel: rows of ``a`` and of ``b``."""
    net = Net()
    x = net.input(1, 2, 2, 2)
    a = net.op("Conv", x, net.constant(FILTERS[..., None, None], "a"), name="ca")
    b = net.op("Conv", x, net.constant(2 * FILTERS[::-1, :, None, None], "b"), name="cb")
    net.consume(net.op("Add", a, b), 4, 1, 4)
    return net.model()


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("sum", [7, 9, 6, 14]), ("mean", [3.5, 4.5, 3, 7]), ("max", [7, 8, 4, 14])],
)
def test_slices_of_a_class_become_one_number(aggregate: str, expected: list[float]) -> None:
    assert _scores(_residual(), "l1", aggregate=aggregate) == expected


def test_positions_of_one_class_are_aggregated_too() -> None:
    """The same row of both groups of a convolution makes one class."""
    net = Net()
    x = net.input(1, 4, 2, 2)
    net.op("Conv", x, net.constant(FILTERS[:, :, None, None], "a"), name="c", group=2)
    net.conv("c", 4, 2, name="y")
    assert _scores(net.model(), "l1") == [11, 1]
    assert _scores(net.model(), "l1", tie=False) == [7, 1, 4, 0]
    assert _scores(net.model(), "l1", aggregate="mean") == [5.5, 0.5]


def _batchnorm() -> Model:
    net = Net()
    c = net.conv(net.input(1, 2, 2, 2), 2, 4, name="c")
    scale = net.constant(np.array([0.5, -2, 0, 1], np.float32), "scale")
    rest = [net.weight(4, low=0.5) for _ in range(3)]
    net.conv(net.op("BatchNormalization", c, scale, *rest), 4, 3, name="d")
    net.conv("d", 3, 2, name="y")
    return net.model()


def test_bn_scale_is_the_magnitude_of_the_scale() -> None:
    assert _scores(_batchnorm(), "bn-scale") == [0.5, 2, 0, 1]


def test_bn_scale_is_undefined_without_a_scale() -> None:
    channels = analyse(_batchnorm().ir.graph)
    importance = Importance(
        channels, criterion="bn-scale", members="producers", aggregate="mean", seed=0
    )
    assert importance.of(coupled_groups(channels)[1]) is None
    with pytest.raises(IrpruneError, match="bn-scale needs BatchNormalization"):
        _scores(_residual(), "bn-scale")


def _split(*kinds: str) -> Model:
    """A convolution whose halves, of two channels each, pass different ops."""
    net = Net()
    c = net.conv(net.input(1, 2, 2, 2), 2, 4, name="c")
    parts = net.split("Split", c, net.ints(2, 2), names=["p", "q"], axis=1)
    scales = [net.weight(2, low=0.5) for _ in range(4)]
    made = [
        net.op(kind, part, *(scales if kind == "BatchNormalization" else ()))
        for kind, part in zip(kinds, parts, strict=True)
    ]
    net.conv(net.op("Concat", *made, axis=1), 4, 3, name="y")
    return net.model()


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
def test_bn_scale_is_undefined_where_a_peer_has_none(aggregate: Any) -> None:
    model = _split("BatchNormalization", "Relu")
    channels = analyse(model.ir.graph)
    (group,) = coupled_groups(channels)
    importance = Importance(channels, "bn-scale", members="producers", aggregate=aggregate, seed=0)
    assert len(group) == 4 and importance.of(group) is None


def _self_attention() -> Model:
    """One weight makes queries, which are the keys too and which no weight reads, and values."""
    net = Net()
    made = net.op("MatMul", net.input(1, 3, 5), net.constant(PROJECTION, "w"))
    q, v = net.split("Split", made, net.ints(2, 2), names=["q", "v"], axis=-1)
    scores = net.op("MatMul", q, net.op("Transpose", q, perm=[0, 2, 1]))
    net.op("MatMul", net.op("MatMul", scores, v), net.constant(OUTPUT, "o"), name="y")
    return net.model()


PROJECTION = np.arange(20, dtype=np.float32).reshape(5, 4)
OUTPUT = np.array([[3, 4], [1, 2]], np.float32)


def test_a_channel_that_no_weight_reads_counts_by_what_creates_it() -> None:
    made = PROJECTION.sum(axis=0)
    assert _scores(_self_attention(), "l1", "consumers") == [made[0], made[1], 7, 3]
    assert _scores(_self_attention(), "l1", "all") == [made[0], made[1], made[2] + 7, made[3] + 3]


def test_random_scores_follow_the_seed() -> None:
    model = _residual()
    first, again, other = (_scores(model, "random", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) == 4


@pytest.mark.parametrize("criterion", ["l1", "l2", "linf", "fpgm"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(criterion: str, number: float) -> None:
    filters = FILTERS.copy()
    filters[2, 1] = number
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(IrpruneError, match="weight a holds NaN or infinity"),
    ):
        _scores(_chain(filters, READERS), criterion)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_scores_do_not_overflow_the_type(dtype: type[np.floating]) -> None:
    filters = np.full((3, 40), 3000, dtype)
    net = Net()
    x = net.op("Cast", net.input(1, 40), to=10 if dtype is np.float16 else 11)
    net.op("MatMul", x, net.constant(filters.T, "a"), name="c")
    net.op("MatMul", "c", net.constant(np.ones((3, 2), dtype), "b"), name="y")
    model = net.model()
    assert value_of(model, "a").dtype.numpy() == dtype
    assert _scores(model, "l1") == [120000] * 3
    assert np.isfinite(_scores(model, "l2")).all()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [1, 2, 3]),
        ("mean", [0.5, 1, 1.5]),
        ("max", [1 / 3, 2 / 3, 1]),
        ("l2", [1 / 14**0.5, 2 / 14**0.5, 3 / 14**0.5]),
    ],
)
def test_normalisation(how: Any, expected: list[float]) -> None:
    assert np.allclose(normalized(np.array([1.0, 2.0, 3.0]), how, 1), expected)
    assert (normalized(np.zeros(3), how, 1) == 0).all()

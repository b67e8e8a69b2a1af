"""The joint loss of the readers: by definition, and where it differs from norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from strategies import Net, seeds, value_of

from irprune import IrpruneError
from irprune.channels import analyse
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.passes.prune import Prune
from irprune.passes.scores.reconstruction import Reconstruction

SPREAD, STAGES = 5.0, 16


def _scores(
    model: Model, group: int = 0, members: Any = "consumers", aggregate: Any = "sum"
) -> npt.NDArray[Any]:
    channels = analyse(model.ir.graph)
    found = Reconstruction(channels, "reconstruction", members, aggregate, 0)
    scores = found.of(coupled_groups(channels)[group])
    assert scores is not None
    return scores


def _defined(columns: npt.NDArray[np.float64]) -> list[float]:
    """The scores of channels whose columns, of all readers, are the rows of a matrix."""
    lost: list[int] = []
    scores = [0.0] * len(columns)

    def loss(channels: list[int]) -> float:
        return float(
            (columns[channels].sum(0) ** 2).sum() + SPREAD * (columns[channels] ** 2).sum()
        )

    reached, step = 0.0, -(-len(columns) // STAGES)
    while len(lost) < len(columns):
        added = {k: loss([*lost, k]) - loss(lost) for k in range(len(columns)) if k not in lost}
        stage = sorted(added, key=added.__getitem__)[:step]
        for k in stage:
            reached = max(reached, added[k])
            scores[k] = reached
        lost += stage
    return scores


def _two_readers(width: int, seed: int) -> Model:
    net = Net(seed=seed)
    c = net.op("Relu", net.conv(net.input(1, 3, 4, 4), 3, width, name="c"))
    net.conv(c, width, 2, name="y")
    net.op("MatMul", net.op("GlobalAveragePool", c), net.weight(1, 1), name="pooled")
    flat = net.op("Reshape", "pooled", net.ints(1, width))
    net.op("MatMul", flat, net.weight(width, 3, name="w"), name="z")
    return net.model("y", "z")


def _flattened(width: int, seed: int) -> Model:
    """A channel is four columns of the reader."""
    net = Net(seed=seed)
    c = net.conv(net.input(1, 3, 2, 2), 3, width, name="c")
    flat = net.op("Reshape", net.op("Relu", c), net.ints(1, 4 * width))
    net.op("MatMul", flat, net.weight(4 * width, 3, name="w"), name="y")
    return net.model()


def _columns(model: Model, width: int) -> npt.NDArray[np.float64]:
    """What all readers multiply each channel with, a row per channel."""
    names = {v.name for v in model.ir.graph.initializers.values()}
    parts = []
    for node in model.ir.graph:
        name = node.inputs[1].name if len(node.inputs) > 1 and node.inputs[1] else ""
        if name not in names or node.outputs[0].name not in ("y", "z"):
            continue
        weight = value_of(model, name).const_value.numpy().astype(np.float64)
        axis = 1 if node.op_type == "Conv" else 0
        parts.append(np.moveaxis(weight, axis, 0).reshape(width, -1))
    return np.concatenate(parts, axis=1)


@given(seed=seeds)
@pytest.mark.parametrize("width", [7, 40])
@pytest.mark.parametrize("make", [_two_readers, _flattened])
def test_scores_are_what_the_readers_lose(
    make: Callable[[int, int], Model], width: int, seed: int
) -> None:
    model = make(width, seed)
    assert np.allclose(_scores(model), _defined(_columns(model, width)), rtol=1e-4)


def _read(*columns: list[float]) -> Model:
    net = Net()
    c = net.conv(net.input(1, 2, 2, 2), 2, len(columns), name="c")
    weight = net.constant(np.array(columns, np.float32).T[..., None, None], "w")
    net.op("Conv", net.op("Relu", c), weight, name="y")
    return net.model()


def test_columns_that_cancel_out_go_together() -> None:
    scores = _scores(_read([1, 0], [1.01, 0], [-1.02, 0]))
    assert np.argsort(scores, kind="stable").tolist() == [0, 2, 1]


def test_scores_never_fall() -> None:
    assert _scores(_read([1, 0], [-1, 0])).tolist() == [6, 6]


def test_the_mean_is_over_the_slices_of_a_channel() -> None:
    model = _two_readers(5, 0)
    assert np.allclose(_scores(model, aggregate="mean"), _scores(model) / 2)


def test_long_columns_are_sampled() -> None:
    """The first elements speak for those behind them: both halves of the readers are alike."""
    random = np.random.default_rng(0)
    half = random.normal(size=(6, 1024))
    model, whole = _read(*half.tolist()), _read(*np.concatenate([half, half], axis=1).tolist())
    assert np.allclose(_scores(whole), 2 * _scores(model), rtol=1e-4)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(number: float) -> None:
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(IrpruneError, match="weight w holds NaN or infinity"),
    ):
        _scores(_read([1, 0], [number, 0]))


def test_a_sum_has_no_maximum() -> None:
    with pytest.raises(IrpruneError, match="choose aggregate=mean or sum"):
        Prune(ratio=0.5, aggregate="max")

"""Pooling: channels pass through, windows pin the positions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Dim, Net, batches, check_random_plan, macs, seeds, ties, why

from irprune.ops.pool import Pool

# op: opsets, has a window
KINDS: dict[str, tuple[tuple[int, ...], bool]] = {
    "AveragePool": ((8, 10, 11, 19, 22), True),
    "GlobalAveragePool": ((8, 22), False),
    "GlobalLpPool": ((8, 21), False),
    "GlobalMaxPool": ((8, 22), False),
    "LpPool": ((8, 11, 18, 22), True),
    "MaxPool": ((8, 10, 12, 22), True),
}


def test_every_op_of_the_table_is_tested() -> None:
    assert set(KINDS) == set(Pool.ops)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_pass_and_positions_stay(kind: str) -> None:
    net = Net()
    m = net.op("MatMul", net.image(3), net.weight(4, 5, name="m"), name="l")
    window = {"kernel_shape": [2, 2]} if KINDS[kind][1] else {}
    net.op(kind, m, name="c", **window)
    net.consume("c", 4, 1, 3)
    model = net.model()
    assert ties(model, ("p.w", 0), ("c", 1)) == [[1, 2, 3]] * 2
    assert why(model, "m", 1).startswith("is a spatial axis of a pooling window")
    assert macs(model) == 3 * 2 * 16 + 3 * 4 * 4 * 5 + 3 * 3 * (3 * 4 if window else 1)


def test_positions_of_maxima_pin() -> None:
    net = Net()
    net.split("MaxPool", net.image(3), names=["c", "where"], kernel_shape=[2, 2])
    net.consume("c", 4, 1, 3)
    assert "the positions that MaxPool returns" in why(net.model(), "p.w", 0)


@pytest.mark.parametrize("kind", KINDS)
@given(
    data=st.data(),
    rank=st.integers(1, 3),
    channels=st.integers(1, 6),
    padded=st.booleans(),
    batch=batches,
    seed=seeds,
)
@settings(max_examples=10)
def test_random_pools_stay_exact(
    kind: str,
    data: st.DataObject,
    rank: int,
    channels: int,
    padded: bool,
    batch: Dim,
    seed: int,
) -> None:
    opsets, windowed = KINDS[kind]
    net = Net(data.draw(st.sampled_from(opsets)), seed)
    window: dict[str, Any] = {}
    if windowed:
        window = {"kernel_shape": [2] * rank, "strides": [2] * rank}
        window |= {"pads": [1] * 2 * rank} if padded else {}
    net.op(kind, net.image(channels, batch, [4] * rank), name="c", **window)
    net.consume("c", rank + 2, 1, channels)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])

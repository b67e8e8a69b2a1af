"""Sampling at computed places: channels pass, everything else stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why


def _sampled(net: Net, kind: str, x: str, batch: Dim) -> str:
    if kind == "GridSample":
        return net.op(kind, x, net.input(batch, 2, 5, 2, name="grid"), name="c")
    rois = net.op("Clip", net.input("R", 4, name="rois"), net.weight(low=0), net.weight(low=1))
    which = net.input("R", name="which", dtype=TensorProto.INT64)
    which = net.op("Sub", which, which)
    return net.op(kind, x, rois, which, name="c", output_height=2, output_width=3)


@pytest.mark.parametrize("kind", ["GridSample", "RoiAlign"])
@given(width=st.integers(1, 5), batch=batches, seed=seeds)
def test_channels_stay_exact(kind: str, width: int, batch: Dim, seed: int) -> None:
    net = Net(16, seed)
    net.consume(_sampled(net, kind, net.image(width, batch), batch), 4, 1, width)
    trial = check_random_plan(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0))[0])
    assert not any(ties(trial.model, ("c", 2))[0])


def test_pooled_regions_pass_channels() -> None:
    net = Net(16)
    rois = net.input(2, 5, name="rois")
    net.op("MaxRoiPool", net.image(4), rois, name="c", pooled_shape=[2, 2])
    net.consume("c", 4, 1, 4)
    assert all(ties(net.model(), ("p.w", 0))[0])


def test_a_grid_of_channels_stays() -> None:
    net = Net(20)
    theta = net.op("Reshape", net.linear(net.input(1, 2), 2, 6, "p"), net.ints(1, 2, 3))
    grid = net.op("AffineGrid", theta, net.ints(1, 2, 4, 4))
    net.op("GridSample", net.input(1, 2, 4, 4, name="i"), grid, name="y")
    assert why(net.model(), "p.w", 1).startswith("names places of a grid")


@given(width=st.integers(2, 4), batch=st.integers(1, 2), seed=seeds)
def test_folded_columns_stay_exact(width: int, batch: int, seed: int) -> None:
    net = Net(18, seed)
    x = net.op("Transpose", net.tokens(width * 4, batch, 9), perm=[0, 2, 1])
    net.op("Col2Im", x, net.ints(4, 4), net.ints(2, 2), name="c")
    net.consume("c", 4, 1, width)
    trial = check_random_plan(net.model(), seed)
    (row,) = ties(trial.model, ("p.w", 1))
    assert all(row)
    assert row == [row[4 * (k // 4)] for k in range(4 * width)]

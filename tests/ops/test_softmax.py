"""Softmax, LogSoftmax, Hardmax and LRN keep what they normalise over, unless they are allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from norm_nets import check_gathered
from strategies import Dim, Net, batches, check_random_plan, seeds, ties, why

KINDS = ["Softmax", "LogSoftmax", "Hardmax"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("opset", "axis", "pinned"),
    [
        (13, None, [3]),
        (13, 1, [1]),
        (13, -2, [2]),
        (11, None, [1, 2, 3]),
        (11, 2, [2, 3]),
        (11, -1, [3]),
    ],
)
def test_pinned_axes(kind: str, opset: int, axis: int | None, pinned: list[int]) -> None:
    """Axes 1 (p), 2 (m) and 3 (n) are free but for the op."""
    net = Net(opset)
    x = net.op("MatMul", net.weight(3, 4, name="m"), net.image(3), name="r")
    x = net.linear(x, 4, 3, "n")
    net.op(kind, x, name="c", **({} if axis is None else {"axis": axis}))
    net.axes_op("ReduceSum", "c", [1, 2, 3], since=13, name="y")
    model = net.model()
    sites = {1: ("p.w", 0), 2: ("m", 0), 3: ("n.w", 1)}
    for k, site in sites.items():
        if k in pinned:
            assert why(model, *site) == f"is normalised by {kind} at c.{kind} ({kind})"
        else:
            assert ties(model, site) == [[1, 2, 3]]


def test_lrn_pins_its_channels() -> None:
    net = Net()
    net.op("LRN", net.image(3), name="c", size=3)
    net.consume("c", 4, 1, 3)
    assert "normalised over neighbouring channels" in why(net.model(), "p.w", 0)


@given(
    kind=st.sampled_from([*KINDS, "LRN"]),
    axis=st.sampled_from([1, 2, 3, -1, -2, -3]),
    channels=st.integers(1, 6),
    batch=batches,
    opset=st.sampled_from([8, 11, 13, 22]),
    seed=seeds,
)
def test_random_normalisations_stay_exact(
    kind: str, axis: int, channels: int, batch: Dim, opset: int, seed: int
) -> None:
    net = Net(opset, seed)
    axis = axis % 4 if opset < 11 else axis
    x = net.op("MatMul", net.weight(channels, 4, name="m"), net.image(channels, batch))
    net.op(kind, net.linear(x, 4, channels, "n"), name="c", **_attributes(kind, axis))
    net.axes_op("ReduceSum", net.op("Sigmoid", "c"), [1, 2, 3], since=13, name="y")
    model = net.model()
    check_random_plan(model, seed)
    trial = check_gathered(model, seed)
    for site in (("p.w", 0), ("m", 0), ("n.w", 1)):
        assert all(ties(model, site, channels=trial.channels)[0])


def _attributes(kind: str, axis: int) -> dict[str, int]:
    return {"size": 3} if kind == "LRN" else {"axis": axis}

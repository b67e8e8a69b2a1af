"""A flattened tensor gathered by a run-time index in its own order is a slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from strategies import Net, feeds_of, proto_of, run, ties

from irprune.folding.strided import unstride
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize

CHANNELS = 4


def _as_strided(
    rows: Sequence[int] = (CHANNELS, 1, 1),
    strides: Sequence[int] = (CHANNELS, 1, 1, 1),
    *,
    start: int = 0,
    length: str = "p.x",
    between: str = "",
) -> Model:
    """Pooled images (N, 4, 1, 1), flattened and gathered with `strides` to (N, *rows)."""
    net = Net(18)
    x = net.op("GlobalAveragePool", net.image(CHANNELS, "N"))
    flat = net.op("Reshape", x, net.ints(-1))
    flat = net.op(between, flat) if between else flat
    shape = net.op("Shape", length if length == "p.x" else net.input("M", 2, name=length))
    batch = net.op("Gather", shape, net.constant(0), axis=0)
    index = _steps(net, net.constant(start), batch, strides[0], 0, len(strides))
    for axis, (count, stride) in enumerate(zip(rows, strides[1:], strict=True), 1):
        end = net.constant(count)
        more = _steps(net, net.constant(0), end, stride, axis, len(strides))
        index = net.op("Add", index, more)
    x = net.op("Gather", flat, index, axis=0, name="strided")
    x = net.op("Reshape", x, net.ints(-1, CHANNELS))
    net.op("MatMul", x, net.weight(CHANNELS, 5, name="d.w"), name="y")
    return net.model()


def _steps(net: Net, start: str, end: str, stride: int, axis: int, rank: int) -> str:
    """Count along one axis of several."""
    steps = net.op("Mul", net.op("Range", start, end, net.constant(1)), net.constant(stride))
    return net.op("Unsqueeze", steps, net.ints(*(k for k in range(rank) if k != axis)))


@pytest.mark.parametrize(
    ("rows", "strides"),
    [((4, 1, 1), (4, 1, 1, 1)), ((4, 1, 1), (4, 1, 9, 7)), ((2, 2), (4, 2, 1)), ((4,), (4, 1))],
)
def test_an_index_in_row_major_order_is_taken_out(
    rows: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    model = _as_strided(rows, strides)
    before = proto_of(model)
    assert ties(model, ("d.w", 0)) == [[0] * CHANNELS]
    changes = Normalize().run(model, Context())
    assert changes["unstrided"] == 1
    assert "Gather" not in {n.op_type for n in model.ir.graph if n.outputs[0].name == "strided"}
    assert len(set(ties(model, ("d.w", 0))[0]) - {0}) >= 2
    for seed in range(3):
        feeds = feeds_of(before, seed)
        assert np.array_equal(run(before, feeds)["y"], run(proto_of(model), feeds)["y"])


def test_fewer_rows_are_a_slice() -> None:
    """The index may stop before the last row."""
    model = _as_strided(length="other")
    before = proto_of(model)
    assert Normalize().run(model, Context())["unstrided"] == 1
    images = np.random.default_rng(0).standard_normal((5, 2, 4, 4)).astype(np.float32)
    feeds = {"p.x": images, "other": np.zeros((3, 2), np.float32)}
    want = run(before, feeds)["y"]
    assert want.shape == (3, 5)
    assert np.array_equal(want, run(proto_of(model), feeds)["y"])


@pytest.mark.parametrize(
    "model",
    [
        _as_strided((2, 2), (4, 1, 2)),  # transposed
        _as_strided((4,), (2, 1)),  # rows that overlap
        _as_strided((2,), (4, 1)),  # half of each row
        _as_strided(start=1),  # from the second row on
        _as_strided(between="Tanh"),  # something happens in between
    ],
    ids=["transposed", "overlapping", "part", "offset", "between"],
)
def test_anything_else_stays(model: Model) -> None:
    assert unstride(model.ir.graph) == 0
    assert "unstrided" not in Normalize().run(model, Context())

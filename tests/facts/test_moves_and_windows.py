"""Facts under pooling, reductions, resampling and ops that move positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fact_nets import CONSTANTS, Masked, equal, facts_of, known
from strategies import Net

POOLS = [
    ("MaxPool", {"pads": [1] * 4}, CONSTANTS),
    ("AveragePool", {"pads": [1] * 4}, CONSTANTS),
    ("AveragePool", {"pads": [1] * 4, "count_include_pad": 1}, {2: 0.0}),
    ("AveragePool", {"ceil_mode": 1}, {2: 0.0}),
    ("LpPool", {}, {2: 0.0}),
]


@pytest.mark.parametrize(("kind", "attributes", "expected"), POOLS)
def test_pools(kind: str, attributes: dict[str, Any], expected: dict[int, float]) -> None:
    net = Masked()
    net.op(kind, net.masked(size=(5, 5)), name="y", kernel_shape=[2, 2], **attributes)
    flow, model = facts_of(net)
    assert known(flow, model, "y") == expected
    assert [4, 5] in equal(flow, model, "y")


GLOBAL = [
    ("GlobalAveragePool", CONSTANTS),
    ("GlobalMaxPool", CONSTANTS),
    ("GlobalLpPool", {2: 0.0}),
]


@pytest.mark.parametrize(("kind", "expected"), GLOBAL)
def test_global_pools(kind: str, expected: dict[int, float]) -> None:
    net = Masked()
    net.op(kind, net.masked("N", size=("H", "W")), name="y")
    flow, model = facts_of(net)
    assert known(flow, model, "y") == expected


@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(keepdims: int) -> None:
    net = Masked()
    x = net.masked("N")
    for kind in ("ReduceMean", "ReduceMax", "ReduceL2"):
        net.op(kind, x, name=kind, axes=[2, 3], keepdims=keepdims)
    net.op("ReduceMean", x, name="all", axes=[1], keepdims=keepdims)
    flow, model = facts_of(net, "ReduceMean", "ReduceMax", "ReduceL2", "all")
    assert known(flow, model, "ReduceMean") == CONSTANTS
    assert known(flow, model, "ReduceMax") == CONSTANTS
    assert known(flow, model, "ReduceL2") == {2: 0.0}


def test_concat_split_slice_and_gather_move_facts() -> None:
    net = Masked()
    x = net.masked("N")
    net.op("Concat", x, net.op("Relu", x), x, name="c", axis=1)
    net.split("Split", "c", net.ints(4, 14), names=["a", "b"], axis=1)
    net.op("Slice", "c", net.ints(5), net.ints(-99), net.ints(1), net.ints(-2), name="s")
    net.op("Gather", "c", net.ints(3, 17, 5, -1), name="g", axis=1)
    net.op("Slice", x, net.ints(0), net.ints(2), net.ints(3), name="r")
    flow, model = facts_of(net, "a", "b", "s", "g", "r")
    assert known(flow, model, "a") == CONSTANTS
    assert known(flow, model, "b") == {3: 0.5, 4: 0, 5: 0, 9: 0.5, 10: 0, 11: -1}
    assert known(flow, model, "s") == {1: -1.0, 2: 0.5}
    assert known(flow, model, "g") == {0: -1.0}
    assert equal(flow, model, "g") == [[1, 2, 3]]
    assert known(flow, model, "r") == CONSTANTS


def test_slices_of_other_axes_are_not_equal() -> None:
    net = Masked()
    x = net.masked()
    net.op("Slice", x, net.ints(0), net.ints(2), net.ints(3), name="a")
    net.op("Slice", x, net.ints(2), net.ints(4), net.ints(3), name="b")
    net.op("Gather", x, net.ints(0, 1), name="c", axis=3)
    net.op("Gather", x, net.ints(2, 3), name="d", axis=3)
    net.op("Concat", "a", "b", "c", "d", name="y", axis=1)
    flow, model = facts_of(net)
    assert set(known(flow, model, "y")) == {6 * k + i for k in range(4) for i in (1, 2, 3)}


def test_reshapes_merge_split_and_shuffle() -> None:
    net = Masked()
    x = net.masked()
    net.op("Reshape", x, net.ints(1, 2, 3, 4, 4), name="r")
    net.op("Transpose", "r", name="t", perm=[0, 2, 1, 3, 4])
    net.op("Reshape", "t", net.ints(1, 6, 4, 4), name="s")
    net.op("Flatten", x, name="f")
    net.op("Unsqueeze", net.op("Squeeze", x, net.ints(0)), net.ints(1), name="u")
    net.op("Reshape", x, net.ints(1, 6, 16), name="v")
    flow, model = facts_of(net, "s", "f", "u", "v")
    assert known(flow, model, "s") == {1: -1.0, 2: 0.5, 4: 0.0}
    assert equal(flow, model, "s") == [[3, 5]]
    assert known(flow, model, "f") == {
        c * 16 + i: v for c, v in CONSTANTS.items() for i in range(16)
    }
    assert [64, 80] in equal(flow, model, "f") and [64, 81] not in equal(flow, model, "f")
    assert known(flow, model, "u", 0) == CONSTANTS
    assert known(flow, model, "v") == CONSTANTS


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    net = Net()
    w = net.random.normal(size=(8, 2, 1, 1)).astype(np.float32)
    depth = np.arange(8).reshape((2, 4) if mode == "CRD" else (4, 2))
    w[depth[1] if mode == "CRD" else depth[:, 1]] = 0
    x = net.op("Conv", net.input(1, 2, 2, 2), net.constant(w), name="c")
    net.op("DepthToSpace", x, name="d", blocksize=2, mode=mode)
    net.op("SpaceToDepth", "d", name="y", blocksize=2)
    flow, model = facts_of(net)
    assert known(flow, model, "d") == {1: 0.0}
    assert known(flow, model, "y") == {1: 0.0, 3: 0.0, 5: 0.0, 7: 0.0}


def test_pads() -> None:
    net = Masked()
    x = net.masked("N")
    half = net.constant(np.float32(0.5))
    net.op("Pad", x, net.ints(0, 1, 0, 0, 0, 2, 0, 0), name="c")
    net.op("Pad", x, net.ints(0, -1, 1, 1, 0, 1, 1, 1), half, name="a")
    net.op("Pad", x, net.ints(0, 0, 1, 1, 0, 0, 1, 1), name="e", mode="edge")
    flow, model = facts_of(net, "c", "a", "e")
    assert known(flow, model, "c") == {0: 0, 2: 0.5, 3: 0, 4: -1, 7: 0, 8: 0}
    assert known(flow, model, "a") == {0: 0.5, 5: 0.5}
    assert known(flow, model, "e") == CONSTANTS


def test_resize_tile_and_expand() -> None:
    net = Masked()
    x = net.masked()
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    net.op("Resize", x, "", scales, name="r", mode="linear")
    net.op("Tile", x, net.ints(1, 2, 1, 2), name="t")
    net.op("Expand", net.op("GlobalAveragePool", x), net.ints(1, 6, 3, 3), name="e")
    flow, model = facts_of(net, "r", "t", "e")
    assert known(flow, model, "r") == CONSTANTS
    assert known(flow, model, "t") == {**CONSTANTS, 7: 0.5, 8: 0, 9: -1}
    assert [0, 6] in equal(flow, model, "t") and [4, 5, 10, 11] in equal(flow, model, "t")
    assert known(flow, model, "e") == CONSTANTS

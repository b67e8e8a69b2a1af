"""Batch and head axes merged for the time of a transpose come apart again."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import Net, feeds_of, proto_of, run, ties

from irprune.folding.merged import unmerge
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize


def _detour(
    merged: list[int], perm: list[int], back: list[int], *, width: int = 6, between: bool = False
) -> Model:
    """Tokens (N, 3, 6) go to ``merged``, are permuted, and come back as ``back``."""
    net = Net()
    x = net.op("Reshape", net.tokens(width, "N"), net.ints(*merged), name="merged")
    x = net.op("Tanh", x) if between else x
    x = net.op("Transpose", x, perm=perm, name="turned")
    net.op("Reshape", x, net.ints(*back), name="back")
    net.op("Tanh", "back", name="y")
    return net.model()


@pytest.mark.parametrize(
    ("merged", "perm", "back"),
    [
        # (N, 3, heads * width) to (N * heads, 3 * width), as nn.MultiheadAttention has it
        ([-1, 2], [1, 0], [2, -1, 9]),
        ([-1, 6], [1, 0], [6, -1, 3]),
        ([-1, 3, 3], [2, 0, 1], [3, -1, 2, 3]),
    ],
)
def test_a_detour_is_taken_out_and_the_numbers_stay(
    merged: list[int], perm: list[int], back: list[int]
) -> None:
    model = _detour(merged, perm, back)
    before = proto_of(model)
    assert unmerge(model.ir.graph) == 1
    Normalize().run(model, Context())
    after = proto_of(model)
    feeds = feeds_of(before, 0)
    assert np.array_equal(run(before, feeds)["y"], run(after, feeds)["y"])
    assert "turned" not in {name for node in after.graph.node for name in node.output}


def test_heads_come_out_of_a_dynamic_batch() -> None:
    """(N, heads, 3, width) to (N * heads, 3, width), transposed, and back."""
    net = Net()
    x = net.op("Reshape", net.tokens(6, "N"), net.ints(0, 3, 2, 3))
    x = net.op("Transpose", x, perm=[0, 2, 1, 3])
    x = net.op("Transpose", net.op("Reshape", x, net.ints(-1, 3, 3)), perm=[0, 2, 1])
    x = net.op("Reshape", x, net.ints(-1, 2, 3, 3))
    net.axes_op("ReduceSum", x, [1, 2], since=13, name="y")
    model = net.model()
    assert ties(model, ("p.w", 1), heads="whole") == [[1, 2, 3, 1, 2, 3]]
    Normalize().run(model, Context())
    assert ties(model, ("p.w", 1), heads="whole") == [[1, 1, 1, 2, 2, 2]]
    kinds = [node.op_type for node in model.ir.graph]
    assert kinds == ["MatMul", "Reshape", "Transpose", "Transpose", "ReduceSum"]


@pytest.mark.parametrize(
    "model",
    [
        _detour([-1, 2], [1, 0], [2, 3, -1]),  # the batch comes last
        _detour([-1, 2], [1, 0], [2, -1, 3]),  # split otherwise than merged
        _detour([-1, 2], [1, 0], [2, -1, 9], between=True),  # something happens in between
        _detour([0, -1, 2], [2, 0, 1], [2, -1, 9]),  # the batch was not merged
    ],
)
def test_anything_else_stays(model: Model) -> None:
    assert unmerge(model.ir.graph) == 0

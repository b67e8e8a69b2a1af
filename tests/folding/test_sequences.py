"""Sequences of known members give way to the members."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from strategies import Net, check_random_plan, feeds_of, proto_of, run, ties

from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize


def _kinds(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.ir.graph)


def _folded(model: Model) -> Counter[str]:
    """Normalise a model, check that its outputs stay, and return its kinds of nodes."""
    before = proto_of(model)
    Normalize().run(model, Context())
    feeds = feeds_of(before, 0)
    expected, actual = run(before, feeds), run(proto_of(model), feeds)
    for output in before.graph.output:
        assert np.array_equal(actual[output.name], expected[output.name])
    return _kinds(model)


def _parts(net: Net, *split: str, at: tuple[int, ...], **attributes: int) -> list[str]:
    """Take members of a projection of six channels that is split along one axis."""
    x = net.op("SplitToSequence", net.tokens(6), *split, **attributes)
    return [net.op("SequenceAt", x, net.constant(np.int64(place))) for place in at]


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize(("size", "at"), [(3, (0, 1)), (3, (1, -2)), (4, (0,)), (4, (-1, 1))])
def test_equal_chunks_and_a_shorter_last_one(opset: int, size: int, at: tuple[int, ...]) -> None:
    net = Net(opset)
    parts = _parts(net, net.constant(np.int64(size)), at=at, axis=-1)
    net.op("Concat", *parts, axis=-1, name="y")
    assert _folded(net.model()).keys() == {"MatMul", "Split", "Concat"}


@pytest.mark.parametrize("opset", [11, 17])
def test_parts_of_given_sizes(opset: int) -> None:
    net = Net(opset)
    first, last = _parts(net, net.ints(1, 3, 2), at=(0, 2), axis=2)
    net.op("Mul", first, last, name="y")
    assert _folded(net.model()) == Counter(MatMul=1, Split=1, Mul=1)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_parts_of_one_position(opset: int, keepdims: int) -> None:
    net = Net(opset)
    first, last = _parts(net, at=(0, 2), axis=1, keepdims=keepdims)
    net.op("Mul", first, last, name="y")
    kinds = _folded(net.model())
    assert kinds["Split"] == 1 and not kinds["SequenceAt"]
    assert kinds["Squeeze"] == (0 if keepdims else 2)


def test_a_list_joined_again_and_members_that_leave_the_graph() -> None:
    net = Net()
    x = net.tokens(6)
    pair = net.op("SequenceConstruct", x, net.op("Tanh", x))
    net.op("ConcatFromSequence", pair, axis=2, name="y")
    net.op("SequenceAt", pair, net.constant(np.int64(1)), name="z")
    net.op("SequenceAt", pair, net.constant(np.int64(-1)), name="t")
    model = net.model("y", "z", "t")
    assert _folded(model) == Counter(MatMul=1, Tanh=1, Concat=1, Identity=1)


def test_channels_of_chunks_leave_together() -> None:
    net = Net()
    gate, up = _parts(net, net.constant(np.int64(3)), at=(0, 1), axis=2)
    net.consume(net.op("Mul", net.op("Sigmoid", gate), up), 3, 2, 3)
    model = net.model()
    Normalize().run(model, Context())
    assert ties(model, ("p.w", 1)) == [[1, 2, 3, 1, 2, 3]]
    check_random_plan(model, 1)


def test_a_split_into_more_parts_than_anyone_asks_for_stays() -> None:
    net = Net()
    x = net.op("SplitToSequence", net.input(10**12), name="s")
    net.op("SequenceAt", x, net.constant(np.int64(0)), name="y")
    model = net.model()
    Normalize().run(model, Context())
    assert _kinds(model) == Counter(SplitToSequence=1, SequenceAt=1)


@pytest.mark.parametrize(
    ("size", "place"), [("unknown", 0), (3, 2), (3, -3)], ids=["size", "behind", "before"]
)
def test_what_is_not_known_stays(size: int | str, place: int) -> None:
    net = Net()
    split = "n" if isinstance(size, str) else net.constant(np.int64(size))
    if isinstance(size, str):
        net.op("ReduceSum", net.op("Shape", net.input(None, name="m")), keepdims=0, name="n")
    (part,) = _parts(net, split, at=(place,), axis=2)
    net.op("Tanh", part, name="y")
    model = net.model()
    Normalize().run(model, Context())
    assert _kinds(model)["SequenceAt"] == _kinds(model)["SplitToSequence"] == 1

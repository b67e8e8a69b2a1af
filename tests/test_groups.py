"""Coupled groups: which classes are peers, and which producers they touch."""

from __future__ import annotations

from strategies import Net

from irprune.analyses import Groups
from irprune.channels import analyse
from irprune.groups import Group, coupled_groups
from irprune.model import Model
from irprune.passbase import Context


def _groups(model: Model) -> list[Group]:
    return coupled_groups(analyse(model.ir.graph))


def _named(groups: list[Group]) -> list[tuple[tuple[str, ...], int]]:
    return [(group.names, len(group)) for group in groups]


def test_a_chain_has_one_group_per_layer_in_order() -> None:
    net = Net()
    x = net.conv(net.image(3, name="a"), 3, 4, name="b")
    net.conv(net.op("Relu", x), 4, 2, name="y")
    groups = _groups(net.model())
    assert _named(groups) == [(("a.w",), 3), (("b.w",), 4)]
    assert [group.index for group in groups] == [0, 1]
    assert groups[0].name == "a.w"
    assert groups[0].producers[0].axis == 0


def test_a_residual_sum_couples_its_producers() -> None:
    net = Net()
    x = net.image(4, name="a")
    net.op("Add", x, net.conv(x, 4, 4, name="b"), name="c")
    net.conv("c", 4, 2, name="y")
    assert _named(_groups(net.model())) == [(("a.w", "b.w"), 4)]


def test_classes_that_touch_other_producers_are_no_peers() -> None:
    """Half of a's channels meet b, the other half meet nothing."""
    net = Net()
    x = net.image(6, name="a")
    left, right = net.split("Split", x, net.ints(2, 4), names=["l", "r"], axis=1)
    net.conv(net.op("Add", left, net.conv(x, 6, 2, name="b")), 2, 2, name="y")
    net.conv(right, 4, 2, name="z")
    groups = _groups(net.model("y", "z"))
    assert sorted(_named(groups)) == [(("a.w",), 4), (("a.w", "b.w"), 2)]


def test_peers_have_equal_multiplicity() -> None:
    """A channel that is gathered into a weight axis twice is no peer of one gathered once."""
    net = Net()
    x = net.op("Gather", net.image(4, name="a"), net.ints(0, 1, 2, 3, 0, 1), axis=1)
    net.op("Add", x, net.conv(net.input(1, 2, 4, 4), 2, 6, name="b"), name="c")
    net.conv("c", 6, 2, name="y")
    groups = _groups(net.model())
    assert _named(groups) == [(("a.w", "b.w"), 2), (("a.w", "b.w"), 2)]
    counts = [
        sorted(int((site.classes == group.classes[0]).sum()) for site in group.producers)
        for group in groups
    ]
    assert sorted(counts) == [[1, 1], [1, 2]]


def test_a_weight_that_two_nodes_share_is_one_producer() -> None:
    net = Net()
    w = net.weight(4, 2, 1, 1, name="w")
    a, b = (net.op("Conv", net.input(1, 2, 4, 4, name=n), w, name=f"c{n}") for n in "ab")
    net.conv(a, 4, 2, name="y")
    net.conv(b, 4, 2, name="z")
    groups = _groups(net.model("y", "z"))
    assert _named(groups) == [(("w",), 4)]
    assert len(groups[0].producers) == 1


def test_both_axes_of_one_weight_are_two_groups() -> None:
    net = Net()
    net.linear(net.linear(net.tokens(3, name="a"), 3, 4, "b"), 4, 2, "y")
    assert _named(_groups(net.model())) == [(("a.w",), 3), (("b.w",), 4)]


def test_classes_without_a_parameter_belong_to_no_group() -> None:
    net = Net()
    x = net.op("Pad", net.image(2, name="a"), net.ints(0, 0, 0, 0, 0, 3, 0, 0), name="c")
    net.conv(x, 5, 2, name="y")
    model = net.model()
    channels = analyse(model.ir.graph)
    assert _named(coupled_groups(channels)) == [(("a.w",), 2)]
    assert len({int(c) for _, _, classes in channels.tensor_axes for c in classes} - {0}) == 5


def test_a_graph_without_free_channels_has_no_groups() -> None:
    net = Net()
    net.conv(net.input(1, 2, 4, 4), 2, 3, name="y")
    assert _groups(net.model()) == []


def test_the_analysis_is_cached_under_its_option() -> None:
    net = Net()
    net.op("Reshape", net.tokens(6, name="a"), net.ints(1, 3, 2, 3), name="c")
    net.axes_op("ReduceSum", "c", [2, 3], since=13, name="y")
    model, context = net.model(), Context()
    inner, whole = context.get(Groups(), model), context.get(Groups("whole"), model)
    assert (len(inner[0]), len(whole[0])) == (3, 2)
    assert context.get(Groups(), model) is inner


def test_weights_behind_a_transpose_and_a_slice_are_producers() -> None:
    """PyTorch's Linear keeps weights ``(out, in)``, its attention several of them in one tensor."""
    net = Net()
    x = net.linear(net.input("N", 2), 2, 3, name="p")
    weight = net.weight(8, 3, name="w")
    for name, start, stop in [("l", 0, 5), ("r", 5, 8)]:
        part = net.op("Slice", weight, net.ints(start), net.ints(stop), net.ints(0))
        y = net.op("MatMul", x, net.op("Transpose", part, perm=[1, 0]))
        net.linear(net.op("Relu", y), stop - start, 2, name=name)
    groups = _groups(net.model("l", "r"))
    assert _named(groups) == [(("p.w",), 3), (("w",), 8)]
    assert [group.producers[0].axis for group in groups] == [1, 0]


def test_a_product_of_activations_has_no_producer() -> None:
    net = Net()
    x = net.linear(net.input(4, 2), 2, 3, name="p")
    net.op("MatMul", x, net.op("Transpose", x, perm=[1, 0]), name="y")
    assert _named(_groups(net.model("y"))) == [(("p.w",), 3)]

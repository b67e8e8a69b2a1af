"""Conv and ConvTranspose: classes, exactness under random plans, and cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from norm_nets import check_gathered
from strategies import Dim, Net, batches, check_random_plan, macs, seeds, ties, why, widths

from irprune.channels import analyse

groups = st.integers(1, 3)
ranks = st.integers(1, 3)
opsets = st.sampled_from([8, 11, 13, 17, 22])


def test_plain_conv_ties_filter_bias_and_consumer() -> None:
    net = Net()
    x = net.image(3, batch="N")
    c = net.op("Conv", x, net.weight(4, 3, 3, 3, name="w"), net.weight(4, name="b"), name="c")
    net.consume(c, 4, 1, 4)
    model = net.model()
    assert ties(model, ("p", 1), ("w", 1)) == [[1, 2, 3], [1, 2, 3]]
    assert ties(model, ("w", 0), ("b", 0), ("c", 1), ("y.w", 1)) == [[1, 2, 3, 4]] * 4
    assert ties(model, ("y.w", 0)) == [[0, 0, 0]]
    assert why(model, "y.w", 0) == "is part of a graph output at output y"
    assert why(model, "p.w", 1) == "is part of a graph input"
    assert why(model, "w", 2) == "is a spatial axis of a convolution at c.Conv (Conv)"
    assert ties(model, ("w", 3), ("p", 2), ("c", 3)) == [[0, 0, 0], [0] * 4, [0] * 2]


def test_grouped_conv_ties_the_same_index_of_every_group() -> None:
    net = Net()
    net.conv(net.image(6), 6, 4, 3, 3, name="c", group=2)
    net.consume("c", 4, 1, 4)
    model = net.model()
    expected = [[1, 2, 3, 1, 2, 3], [1, 2, 3], [4, 5, 4, 5], [4, 5, 4, 5]]
    assert ties(model, ("p", 1), ("c.w", 1), ("c.w", 0), ("y.w", 1)) == expected


def test_depthwise_conv_passes_channels_through_in_blocks() -> None:
    net = Net()
    net.conv(net.image(3), 3, 6, 3, 3, name="c", group=3)
    net.consume("c", 4, 1, 6)
    model = net.model()
    expected = [[1, 2, 3], [1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3]]
    assert ties(model, ("p", 1), ("c.w", 0), ("y.w", 1)) == expected
    assert why(model, "c.w", 1).startswith("is the single input channel of a depthwise filter")


def test_transposed_conv_ties_its_columns_across_groups() -> None:
    net = Net()
    w = net.weight(4, 3, 2, 2, name="w")
    net.op("ConvTranspose", net.image(4), w, net.weight(6, name="b"), name="c", group=2)
    net.consume("c", 4, 1, 6)
    model = net.model()
    assert ties(model, ("p", 1), ("w", 0)) == [[1, 2, 1, 2]] * 2
    assert ties(model, ("w", 1), ("c", 1), ("b", 0)) == [[1, 2, 3], [1, 2, 3] * 2, [1, 2, 3] * 2]
    assert why(model, "w", 3).startswith("is a spatial axis of a convolution")


def test_depthwise_transposed_conv_passes_channels_through_in_blocks() -> None:
    net = Net()
    net.op("ConvTranspose", net.image(3), net.weight(3, 2, 2, 2, name="w"), name="c", group=3)
    net.consume("c", 4, 1, 6)
    model = net.model()
    assert ties(model, ("p", 1), ("w", 0), ("c", 1)) == [[1, 2, 3], [1, 2, 3], [1, 1, 2, 2, 3, 3]]
    assert why(model, "w", 1).startswith("is the channel multiplier of a depthwise filter")


def test_a_computed_weight_is_tied_like_a_constant_one() -> None:
    net = Net()
    w = net.op("Identity", net.weight(4, 3, 1, 1, name="w"), name="i")
    net.op("Conv", net.image(3), w, name="c")
    net.consume("c", 4, 1, 4)
    model = net.model()
    assert ties(model, ("w", 0), ("i", 0), ("c", 1)) == [[1, 2, 3, 4]] * 3


def test_macs() -> None:
    net = Net()
    x = net.input(2, 4, 8, 8)
    net.conv(x, 4, 6, 3, 3, name="y", group=2, pads=[1, 1, 1, 1], strides=[2, 2])
    # 6 filters of 2x3x3 at 4x4 positions of 2 images
    assert macs(net.model()) == 6 * 2 * 9 * 16 * 2
    net = Net()
    net.conv(net.input(1, 4, 8, 8), 4, 8, 3, 3, name="y", group=4)
    assert macs(net.model()) == 8 * 9 * 36
    net = Net()
    net.op("ConvTranspose", net.input(1, 4, 5, 5), net.weight(4, 3, 2, 2), name="y", group=2)
    # each of 4x5x5 inputs meets 3x2x2 weights
    assert macs(net.model()) == 4 * 25 * 3 * 4


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@given(
    rank=ranks,
    group=groups,
    inner=st.integers(1, 3),
    outer=st.integers(1, 3),
    bias=st.booleans(),
    stride=st.integers(1, 2),
    batch=batches,
    opset=opsets,
    seed=seeds,
)
def test_random_convolutions_stay_exact(
    kind: str,
    rank: int,
    group: int,
    inner: int,
    outer: int,
    bias: bool,
    stride: int,
    batch: Dim,
    opset: int,
    seed: int,
) -> None:
    """With one input channel per group the convolution is depthwise, with a multiplier."""
    net = Net(opset, seed)
    channels, filters = group * inner, group * outer
    x = net.image(channels, batch, [4] * rank)
    rows, columns = (filters, inner) if kind == "Conv" else (channels, outer)
    inputs = [net.weight(rows, columns, *[2] * rank, name="w")]
    inputs += [net.weight(filters, name="b")] if bias else []
    net.op(kind, x, *inputs, name="c", group=group, strides=[stride] * rank)
    net.consume(net.op("Relu", "c"), rank + 2, 1, filters)
    trial = check_random_plan(net.model(), seed)
    free = ties(trial.model, ("p", 1), ("c", 1))
    assert all(all(row) for row in free)
    kept = filters - trial.removed("c", 1)
    node = next(n for n in trial.small.ir.graph if n.name == f"c.{kind}")
    if group > 1 and inner == 1:
        assert node.attributes.get_int("group") * outer == kept
    else:
        assert node.attributes.get_int("group") == group


@given(
    batch=batches,
    size=st.sampled_from([5, "H"]),
    kernel=st.integers(1, 3),
    dilation=st.integers(1, 2),
    seed=seeds,
)
def test_conv_chains_with_symbolic_sizes_stay_exact(
    batch: Dim, size: Dim, kernel: int, dilation: int, seed: int
) -> None:
    net = Net(seed=seed)
    x = net.image(5, batch, (size, size))
    c = net.conv(x, 5, 6, kernel, kernel, auto_pad="SAME_UPPER")
    d = net.conv(c, 6, 6, 3, 3, group=6, dilations=[dilation] * 2, pads=[2] * 4)
    net.conv(d, 6, 2, 1, 1, name="y")
    trial = check_random_plan(net.model(), seed)
    assert ties(trial.model, ("p", 1)) == [[1, 2, 3, 4, 5]]


@given(seed=seeds, tokens=widths, channels=widths, kernel=st.sampled_from([1, 2]))
def test_channels_on_a_spatial_axis_pass_a_filter_of_length_one(
    seed: int, tokens: int, channels: int, kernel: int
) -> None:
    """A product over tokens written as a convolution: the embedding stands on the spatial axis."""
    net = Net()
    x = net.op("Reshape", net.tokens(channels + 1, length=tokens), net.ints(1, tokens, -1))
    net.conv(x, tokens, 3, kernel, name="c")
    net.consume("c", 3, 2, channels + 2 - kernel)
    trial = check_random_plan(net.model(), seed)
    (classes,) = ties(trial.model, ("p.w", 1))
    assert all(classes) if kernel == 1 else not any(classes)


def _channel_attention(
    channels: int, batch: Dim = 1, kernel: int = 3, opset: int = 17, **attributes: object
) -> Net:
    """As ECA: a filter slides over the pooled channels of p, and what it makes scales them."""
    net = Net(opset)
    x = net.image(channels, batch)
    z = net.op("GlobalAveragePool", x)
    z = net.op("Reshape", z, net.ints(-1, 1, channels), name="places")
    z = net.conv(z, 1, 1, kernel, name="s", **attributes)
    z = net.op("Sigmoid", net.op("Reshape", z, net.ints(-1, channels, 1, 1)))
    net.consume(net.op("Mul", x, z), 4, 1, channels)
    return net


def test_a_filter_over_channels_keeps_them_unless_it_is_allowed() -> None:
    model = _channel_attention(4, pads=[1, 1]).model()
    reason = "is filtered together with its neighbours at s.Conv (Conv)"
    assert why(model, "p.w", 0) == reason
    for allow in ("Conv", "inexact"):
        channels = analyse(model.ir.graph, allow=(allow,))
        sites = [("p.w", 0), ("places", 2), ("s", 2), ("y.w", 1)]
        assert ties(model, *sites, channels=channels) == [[1, 2, 3, 4]] * 4
        assert ties(model, ("s.w", 2), channels=channels) == [[0] * 3]


@pytest.mark.parametrize(
    ("outer", "attributes"),
    [(2, {"pads": [1, 1]}), (1, {"pads": [2, 2]}), (1, {"pads": [1, 1], "strides": [2]})],
)
def test_filters_that_change_the_number_of_places_keep_them(
    outer: int, attributes: dict[str, list[int]]
) -> None:
    net = Net()
    z = net.op("Transpose", net.tokens(5), perm=[0, 2, 1])
    z = net.op("Reshape", z, net.ints(3, 1, 5), name="places")
    z = net.conv(z, 1, outer, 3, name="s", **attributes)
    net.axes_op("ReduceSum", z, [1, 2], since=13, name="y")
    model = net.model()
    channels = analyse(model.ir.graph, allow=("inexact",))
    assert not any(ties(model, ("places", 2), channels=channels)[0])


@given(
    seed=seeds,
    channels=st.integers(2, 7),
    reach=st.integers(0, 2),
    dilation=st.integers(1, 2),
    opset=opsets,
    batch=batches,
)
def test_random_filters_over_channels_equal_the_gathered_reference(
    seed: int, channels: int, reach: int, dilation: int, opset: int, batch: Dim
) -> None:
    pads, kernel = [reach * dilation] * 2, 2 * reach + 1
    net = _channel_attention(channels, batch, kernel, opset, pads=pads, dilations=[dilation])
    trial = check_gathered(net.model(), seed)
    assert all(ties(trial.model, ("p.w", 0), channels=trial.channels)[0])

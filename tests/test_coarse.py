"""Layers and the groups they tie."""

from __future__ import annotations

from strategies import Net

from irprune.channels import analyse
from irprune.coarse import layers_of
from irprune.groups import coupled_groups


def test_a_residual_network_layer_by_layer() -> None:
    net = Net()
    stem = net.conv(net.input(1, 3, 4, 4), 3, 4, name="stem")
    inner = net.op("Relu", net.conv(net.op("Relu", stem), 4, 6, name="inner"))
    stream = net.op("Add", stem, net.conv(inner, 6, 4, name="outer"))
    net.conv(stream, 4, 2, name="y")
    channels = analyse(net.model().ir.graph)
    groups = coupled_groups(channels)
    stream_group, inner_group = (next(g.index for g in groups if len(g) == size) for size in (4, 6))
    found = {
        layer.name.split()[0]: (layer.creates, layer.sums) for layer in layers_of(channels, groups)
    }
    assert [*found.values()] == [
        ([stream_group], []),
        ([inner_group], [stream_group]),
        ([stream_group], [inner_group]),
        ([], [stream_group]),
    ]

"""A small network, what a random plan makes of it, and how to find its nodes."""

from __future__ import annotations

import onnx_ir as ir
from strategies import Net, compacted, random_keep

from irprune.channels import analyse
from irprune.model import Model
from irprune.plan import Plan

Case = tuple[ir.Model, ir.Model, Plan]
"""A base, its compaction, and the plan."""


def layers(height: int | str = 6, width: int | str = 6) -> Net:
    """Convolution, BatchNormalization, Relu and convolution of 3, 8 and 4 channels."""
    net = Net()
    net.conv(net.input("N", 3, height, width), 3, 8, 3, 3, name="a")
    scale, shift, mean = (net.weight(8, name=f"b.{name}") for name in ("scale", "shift", "mean"))
    net.op("BatchNormalization", "a", scale, shift, mean, net.weight(8, low=0.5), name="b")
    net.conv(net.op("Relu", "b", name="r"), 8, 4, 1, 1, name="y")
    return net


def pruned(model: Model, seed: int = 1) -> Case:
    """A base, what a random plan makes of it, and the plan."""
    channels = analyse(model.ir.graph)
    plan = channels.plan(random_keep(channels, seed))
    assert plan
    return model.ir, compacted(model, plan).ir, plan


def node(model: ir.Model, output: str) -> ir.Node:
    return next(n for n in model.graph if n.outputs[0].name == output)

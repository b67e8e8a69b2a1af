"""Pooling, resampling and reductions: each slice by itself, over axes that are not tracked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from irprune.facts.domain import Facts, Mask
from irprune.facts.flow import constants, identity
from irprune.facts.linear import padless
from irprune.ops.reduce import reduced_axes

if TYPE_CHECKING:
    from irprune.facts.flow import Flow, Transfer

_KEEP_EVERY = ("ReduceMean", "ReduceMax", "ReduceMin")
_KEEP_ZERO = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


def _data(node: ir.Node) -> ir.Value:
    data = node.inputs[0]
    assert data is not None
    return data


def pool(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """The mean or maximum of equal numbers is that number; a norm keeps only zero.

    A window of AveragePool that counts added zeros, or that may hang over the border, keeps
    only zero as well.
    """
    facts = flow.of(_data(node))
    facts = facts.collapsed(range(2, len(facts.shape)))
    keep: Mask | bool = True
    if node.op_type == "AveragePool":
        counted = node.attributes.get_int("count_include_pad", 0) and not padless(node)
        if counted or node.attributes.get_int("ceil_mode", 0):
            keep = facts.const == 0
    elif node.op_type in ("LpPool", "GlobalLpPool"):
        keep = facts.const == 0
    return [facts.through(*identity(node, facts), keep=keep)]


def resize(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Interpolation between equal numbers gives that number; cropping may add others."""
    data, more = _data(node), constants(node)
    facts, before, after = flow.of(data), flow.dims(data), flow.dims(node.outputs[0])
    facts = facts.collapsed([k for k in range(len(before)) if before[k] != after[k] or k > 1])
    key = identity(node, facts, *(more or (node.outputs[0].name,)))
    crop = node.attributes.get_string("coordinate_transformation_mode", "")
    return [facts.through(*key, keep=facts.known & (crop != "tf_crop_and_resize"))]


def reduce(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Means and extremes of equal numbers are that number; sums and norms keep zero."""
    axes = reduced_axes(node)
    if axes is None:
        return [None]
    facts = flow.of(_data(node)).collapsed(axes)
    if not node.attributes.get_int("keepdims", 1):
        facts = facts.reshaped([n for k, n in enumerate(facts.shape) if k not in axes])
    keep = True if node.op_type in _KEEP_EVERY else facts.const == 0
    return [facts.through(*identity(node, facts, axes), keep=keep)]


TRANSFERS: dict[str, Transfer] = {
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"), pool),
    **dict.fromkeys(("LpPool", "MaxPool"), pool),
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys((*_KEEP_EVERY, *_KEEP_ZERO), reduce),
}

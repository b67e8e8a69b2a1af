"""Pad: positions that a constant pad adds have labels of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


def pads_of(node: ir.Node, rank: int) -> list[tuple[int, int]] | None:
    """Return (before, after) of every axis, negative where positions are cut; None if computed."""
    numbers = _constant_ints(node, 1) if "pads" not in node.attributes else None
    if "pads" in node.attributes:
        numbers = [int(n) for n in node.attributes["pads"].as_ints()]
    if numbers is None:
        return None
    axes = list(range(rank))
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        given = _constant_ints(node, 3)
        if given is None:
            return None
        axes = [a % rank for a in given]
    pads = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        pads[axis] = (numbers[i], numbers[i + len(axes)])
    return pads


def _constant_ints(node: ir.Node, index: int) -> list[int] | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return [int(n) for n in value.const_value.numpy().ravel()]


class Pad(Rule):
    """Positions before and after each axis: constant, or copies of inner ones."""

    ops = ("Pad",)
    lengths = (1, 3)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        pads = pads_of(node, len(axes))
        if pads is None:
            walk.pin_node(node, "the pads are computed at run time")
            return
        constant = node.attributes.get_string("mode", "constant") == "constant"
        output: list[Axis] = []
        for axis, (before, after) in zip(axes, pads, strict=True):
            if axis is None or (before, after) == (0, 0):
                output.append(axis)
                continue
            if not constant or before < 0 or after < 0:
                walk.pin(axis, "is padded with copies of its positions, or cut")
            inner = axis[max(-before, 0) : len(axis) - max(-after, 0)]
            added = walk.fresh if constant else _pinned
            parts = [added(max(before, 0)), inner, added(max(after, 0))]
            output.append(np.concatenate(parts))
        walk.set(node.outputs[0], output)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None and data.shape is not None
        rank = len(data.shape)
        pads = pads_of(node, rank)
        if pads is None:
            return
        new = []
        for axis, (before, after) in enumerate(pads):
            mask = edit.kept(output, axis)
            if mask is not None and before > 0:
                before = int(mask[:before].sum())
            if mask is not None and after > 0:
                after = int(mask[-after:].sum())
            new.append((before, after))
        if new == pads:
            return
        numbers = [b for b, _ in new] + [a for _, a in new]
        if "pads" in node.attributes:
            edit.set_attribute(node, "pads", numbers)
            return
        edit.set_constant(node, 1, numbers)
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            edit.set_constant(node, 3, list(range(rank)))


def _pinned(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)


RULES = (Pad(),)

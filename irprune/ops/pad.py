"""Pad: positions that a constant pad adds have labels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.elements import elements_of
from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

Pads = tuple[int | None, int | None]
"""Positions added before and after an axis; None where computed at run time."""


def pads_of(node: ir.Node, rank: int) -> list[tuple[int, int]] | None:
    """Return (before, after) of every axis, negative where positions are cut; None if computed."""
    pads = partial_pads(node, rank)
    known = [(b, a) for b, a in pads or () if b is not None and a is not None]
    return known if pads is not None and len(known) == len(pads) else None


def partial_pads(node: ir.Node, rank: int) -> list[Pads] | None:
    """Return (before, after) of every axis, None where a number is computed at run time.

    The whole result is None where it is unknown which axes are padded.
    """
    numbers: list[int | None] | None
    if "pads" in node.attributes:
        numbers = list(node.attributes["pads"].as_ints())
    else:
        numbers = elements_of(node.inputs[1])
    axes: Sequence[int | None] | None = range(rank)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        axes = elements_of(node.inputs[3])
    if numbers is None or axes is None or len(numbers) != 2 * len(axes):
        return None
    pads: list[Pads] = [(0, 0)] * rank
    for axis, before, after in zip(axes, numbers, numbers[len(axes) :], strict=False):
        if axis is None:
            return None
        pads[axis % rank] = (before, after)
    return pads


class Pad(Rule):
    """Positions before and after each axis: constant, or copies of inner ones."""

    ops = ("Pad",)
    lengths = (1, 3)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        pads = partial_pads(node, len(axes))
        if pads is None:
            walk.pin_node(node, "the pads are computed at run time")
            return
        constant = node.attributes.get_string("mode", "constant") == "constant"
        output: list[Axis] = []
        for axis, (before, after) in zip(axes, pads, strict=True):
            if axis is None or (before, after) == (0, 0):
                output.append(axis)
                continue
            if before is None or after is None:
                walk.pin(axis, "is padded by a computed length")
                output.append(None)
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
        pads = partial_pads(node, rank)
        if pads is None:
            return
        new: list[Pads] = []
        for axis, (before, after) in enumerate(pads):
            mask = edit.kept(output, axis)
            if mask is not None and before is not None and before > 0:
                before = int(mask[:before].sum())
            if mask is not None and after is not None and after > 0:
                after = int(mask[-after:].sum())
            new.append((before, after))
        if new != pads:
            self._store(node, edit, new)

    @staticmethod
    def _store(node: ir.Node, edit: Edit, pads: list[Pads]) -> None:
        if "pads" in node.attributes:
            numbers = [n for ends in zip(*pads, strict=True) for n in ends if n is not None]
            edit.set_attribute(node, "pads", numbers)
            return
        axes = list(range(len(pads)))
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            axes = [a % len(pads) for a in elements_of(node.inputs[3]) or () if a is not None]
        edit.set_shape_input(node, 1, [pads[k][end] for end in (0, 1) for k in axes])


def _pinned(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)


RULES = (Pad(),)

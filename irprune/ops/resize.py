"""Resize and Upsample: the resampled axes stay, the others pass through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.elements import scales_of
from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

_SIZES = 3


def mode(node: ir.Node) -> str:
    """Return the coordinate transformation mode, empty where none is named."""
    return node.attributes.get_string("coordinate_transformation_mode", "") or ""


def scales(node: ir.Node, rank: int) -> list[float | None]:
    """Return the scale of each axis, None where computed at run time; 1 where none is given."""
    found: list[float | None] = [1.0] * rank
    given = scales_input(node)
    numbers: Sequence[float | None] | None
    if "scales" in node.attributes:
        numbers = node.attributes["scales"].as_floats()
    else:
        numbers = [] if given is None else scales_of(given)
    if numbers is None:
        return [None] * rank
    axes = node.attributes.get_ints("axes") or range(rank)
    for axis, number in zip(axes, numbers, strict=False):
        found[axis % rank] = number
    return found


def scales_input(node: ir.Node) -> ir.Value | None:
    """Upsample and the first Resize read (X, scales), later ones (X, roi, scales, sizes)."""
    index = 1 if len(node.inputs) == 2 else 2
    return node.inputs[index] if len(node.inputs) > index else None


class Resize(Rule):
    """Interpolation along the axes whose length changes, or that name a region of interest."""

    ops = ("Resize", "Upsample")
    lengths = (1, 2, 3)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        result: list[Axis] = []
        axes = walk.axes(data)
        factors = scales(node, len(axes))
        crops = mode(node) == "tf_crop_and_resize"
        # The first two axes are batch and channels by every exporter's convention; any axis
        # whose length is unchanged could still be resampled, so the others stay.
        for k, (axis, before, after) in enumerate(
            zip(axes, walk.dims(data), walk.dims(output), strict=True)
        ):
            if k < 2 and before == after and factors[k] == 1 and not crops:
                result.append(axis)
                continue
            walk.pin(axis, "is resampled")
            result.append(np.zeros(after, np.int64) if isinstance(after, int) else None)
        walk.set(output, result)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        sizes = node.inputs[_SIZES] if len(node.inputs) > _SIZES else None
        if sizes is None or not edit.touched(node):
            return
        lengths = edit.lengths(node.outputs[0])
        axes = node.attributes.get_ints("axes")
        if axes:
            lengths = [lengths[k] for k in axes]
        edit.set_shape_input(node, _SIZES, lengths)


RULES = (Resize(),)

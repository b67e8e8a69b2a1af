"""Resize and Upsample: the resampled axes stay, the others pass through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

_SIZES = 3


def _mode(node: ir.Node) -> str:
    return node.attributes.get_string("coordinate_transformation_mode", "") or ""


def _scales(node: ir.Node, walk: Walk, rank: int) -> dict[int, float]:
    """Return the constant scale of each axis that has one."""
    if "scales" in node.attributes:
        numbers: Sequence[float] = node.attributes["scales"].as_floats()
    else:
        # Upsample and the first Resize read (X, scales), later ones (X, roi, scales, sizes).
        scales = walk.constant(node.inputs[1 if len(node.inputs) == 2 else 2])
        numbers = [] if scales is None else scales.tolist()
    axes = node.attributes.get_ints("axes") or range(rank)
    return {axis % rank: scale for axis, scale in zip(axes, numbers, strict=False)}


class Resize(Rule):
    """Interpolation along the axes whose length changes, or that name a region of interest."""

    ops = ("Resize", "Upsample")
    lengths = (1, 2, 3)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        result: list[Axis] = []
        axes = walk.axes(data)
        scales = _scales(node, walk, len(axes))
        crops = _mode(node) == "tf_crop_and_resize"
        # The first two axes are batch and channels by every exporter's convention; any axis
        # whose length is unchanged could still be resampled, so the others stay.
        for k, (axis, before, after) in enumerate(
            zip(axes, walk.dims(data), walk.dims(output), strict=True)
        ):
            if k < 2 and before == after and scales.get(k, 1) == 1 and not crops:
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

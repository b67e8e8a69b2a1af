"""Resize and Upsample: the resampled axes stay, the others pass through."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

_SIZES = 3


class Resize(Rule):
    """Interpolation along the axes whose length changes, or that name a region of interest."""

    ops = ("Resize", "Upsample")

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data, output = node.inputs[0], node.outputs[0]
        assert data is not None
        result: list[Axis] = []
        axes = walk.axes(data)
        # The first two axes are batch and channels by every exporter's convention; any axis
        # whose length is unchanged could still be resampled, so the others stay.
        for k, (axis, before, after) in enumerate(
            zip(axes, walk.dims(data), walk.dims(output), strict=True)
        ):
            if self._passes(node, k, before == after):
                result.append(axis)
                continue
            walk.pin(axis, "is resampled")
            result.append(np.zeros(after, np.int64) if isinstance(after, int) else None)
        walk.set(output, result)

    @staticmethod
    def _passes(node: ir.Node, axis: int, same_length: bool) -> bool:
        crop = node.attributes.get_string("coordinate_transformation_mode", "")
        return same_length and axis < 2 and crop != "tf_crop_and_resize"

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

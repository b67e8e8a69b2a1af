"""Slice and Split: parts of one axis, addressed by positions that move when channels go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis, Labels
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit, Mask
    from irprune.walk import Walk

_PARAMETERS = ("starts", "ends", "axes", "steps")


def _parameter(node: ir.Node, k: int) -> Sequence[int] | None:
    """Return starts, ends, axes or steps (k = 0..3) as attribute or constant input, else None."""
    if k < 3 and _PARAMETERS[k] in node.attributes:
        return list(node.attributes[_PARAMETERS[k]].as_ints())
    value = node.inputs[k + 1] if len(node.inputs) > k + 1 else None
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return [int(n) for n in value.const_value.numpy().ravel()]


def slices_of(node: ir.Node, rank: int) -> dict[int, slice] | None:
    """Return the Python slice of each sliced axis, or None where one is not constant."""
    starts, ends, axes, steps = (_parameter(node, k) for k in range(4))
    given = [value is not None for value in node.inputs[1:]]
    if starts is None or ends is None or (axes is None and any(given[2:3])):
        return None
    if steps is None and any(given[3:4]):
        return None
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    return {
        axis % rank: _python_slice(start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def _python_slice(start: int, end: int, step: int) -> slice:
    """ONNX clamps an end far below zero to "before the first"; Python spells that None."""
    return slice(start, None if step < 0 and end < -(2**31) + 2 else end, step)


class Slice(Rule):
    """Constant starts, ends and steps: the labels are sliced alike."""

    ops = ("Slice",)
    lengths = (1, 2, 3, 4)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = list(walk.axes(node.inputs[0]))
        slices = slices_of(node, len(axes))
        if slices is None:
            walk.pin_node(node, "the slice bounds are computed at run time")
            return
        for k, part in slices.items():
            labels = axes[k]
            if labels is None:
                continue
            if abs(part.step) != 1:
                self._tie_blocks(walk, labels, abs(part.step))
            axes[k] = labels[self._clamped(part, len(labels))]
        walk.set(node.outputs[0], axes)

    @staticmethod
    def _tie_blocks(walk: Walk, labels: Labels, step: int) -> None:
        """Let positions go in blocks of ``step`` only, so that the step still meets its own."""
        leaders = np.arange(len(labels)) // step * step
        walk.unify(labels, labels[leaders])

    @staticmethod
    def _clamped(part: slice, length: int) -> slice:
        """ONNX clamps negative positions beyond the start; Python does the same for slices."""
        start, stop, step = part.indices(length)
        return slice(start, None if stop < 0 else stop, step)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data = node.inputs[0]
        assert data is not None and data.shape is not None
        rank = len(data.shape)
        masks = {k: edit.kept(data, k) for k in range(rank)}
        slices = slices_of(node, rank)
        if slices is None or not any(masks.get(k) is not None for k in slices):
            return
        starts, ends = [], []
        for k, part in slices.items():
            mask = masks[k]
            start, end = part.start, part.stop
            if mask is not None:
                start, end = self._renumbered(part, mask)
            elif end is None:
                end = -(2**31)
            starts.append(start)
            ends.append(end)
        self._store(node, edit, 0, starts)
        self._store(node, edit, 1, ends)

    @classmethod
    def _renumbered(cls, part: slice, mask: Mask) -> tuple[int, int]:
        """Return where the kept ones of the selected positions start and end."""
        selected = np.arange(len(mask))[cls._clamped(part, len(mask))]
        selected = (np.cumsum(mask) - 1)[selected[mask[selected]]]
        if not len(selected):
            return 0, 0
        end = int(selected[-1]) + (1 if part.step > 0 else -1)
        return int(selected[0]), end if end >= 0 else -(2**31)

    @staticmethod
    def _store(node: ir.Node, edit: Edit, k: int, numbers: list[int]) -> None:
        if _PARAMETERS[k] in node.attributes:
            edit.set_attribute(node, _PARAMETERS[k], numbers)
        else:
            edit.set_constant(node, k + 1, numbers)


class Split(Rule):
    """Consecutive parts of one axis, by sizes, by number of outputs, or evenly."""

    ops = ("Split",)
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.axes(node.inputs[0])
        split = node.attributes.get_int("axis", 0) % len(axes)
        lengths = [walk.dims(output)[split] for output in node.outputs]
        labels = axes[split]
        known = [n for n in lengths if isinstance(n, int)]
        if labels is not None and (len(known) < len(lengths) or sum(known) != len(labels)):
            walk.pin_node(node, "the split sizes are unknown")
            return
        parts: list[Axis] = (
            [None] * len(lengths)
            if labels is None
            else list(np.split(labels, np.cumsum(known[:-1])))
        )
        for output, part in zip(node.outputs, parts, strict=True):
            walk.set(output, [*axes[:split], part, *axes[split + 1 :]])

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data = node.inputs[0]
        assert data is not None and data.shape is not None
        split = node.attributes.get_int("axis", 0) % len(data.shape)
        if edit.kept(data, split) is None:
            return
        sizes = [edit.length(output, split) for output in node.outputs]
        node.attributes.pop("num_outputs", None)
        if edit.opset >= 13:
            edit.set_constant(node, 1, sizes)
        else:
            edit.set_attribute(node, "split", sizes)


RULES = (Slice(), Split())

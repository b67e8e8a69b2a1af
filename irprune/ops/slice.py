"""Slice and Split: parts of one axis, addressed by positions that move when channels go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from irprune.elements import elements_of
from irprune.labels import Labels, Rows, selected
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.plan import Mask
    from irprune.walk import Walk

_PARAMETERS = ("starts", "ends", "axes", "steps")


def _parameter(node: ir.Node, k: int) -> list[int | None] | None:
    """Return starts, ends, axes or steps (k = 0..3); None for computed elements, or if absent."""
    if k < 3 and _PARAMETERS[k] in node.attributes:
        return list(node.attributes[_PARAMETERS[k]].as_ints())
    return elements_of(node.inputs[k + 1]) if len(node.inputs) > k + 1 else None


def slices_of(node: ir.Node, rank: int) -> dict[int, slice] | None:
    """Return the Python slice of each sliced axis, or None where one is not constant."""
    slices = partial_slices(node, rank)
    known = {axis: part for axis, part in (slices or {}).items() if part is not None}
    return known if slices is not None and len(known) == len(slices) else None


def partial_slices(node: ir.Node, rank: int) -> dict[int, slice | None] | None:
    """Return the Python slice of each sliced axis, None where it is computed at run time.

    The whole result is None where it is unknown which axes are sliced.
    """
    starts, ends, axes, steps = (_parameter(node, k) for k in range(4))
    given = [value is not None for value in node.inputs[1:]]
    if starts is None or ends is None or (axes is None and any(given[2:3])):
        return None
    if steps is None and any(given[3:4]):
        return None
    slices: dict[int, slice | None] = {}
    rows = zip(axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=True)
    for axis, start, end, step in rows:
        if axis is None:
            return None
        if start is None or end is None or step is None:
            slices[axis % rank] = None
        else:
            slices[axis % rank] = _python_slice(start, end, step)
    return slices


def _python_slice(start: int, end: int, step: int) -> slice:
    """ONNX clamps an end far below zero to "before the first"; Python spells that None."""
    return slice(start, None if step < 0 and end < -(2**31) + 2 else end, step)


class Slice(Rule):
    """Constant starts, ends and steps: the labels are sliced alike."""

    ops = ("Slice",)
    lengths = (1, 2, 3, 4)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = list(walk.rows(node.inputs[0]))
        slices = partial_slices(node, len(axes))
        if slices is None:
            walk.pin_node(node, "the sliced axes are computed at run time")
            return
        for k, part in slices.items():
            labels = axes[k]
            if labels is None:
                continue
            if part is None:
                walk.pin(labels, "is sliced at positions computed at run time")
                axes = [walk.tied(a) if isinstance(a, Rows) and k in a.per else a for a in axes]
                axes[k] = None
                continue
            if abs(part.step) != 1:
                axes[k] = tied = walk.tied(labels)
                assert tied is not None
                self._tie_blocks(walk, tied, abs(part.step))
            chosen = np.arange(len(labels))[self._clamped(part, len(labels))]
            rows = axes[k]
            if isinstance(rows, Rows) and len(chosen):
                walk.balance_parts(rows, [int(chosen.min()), int(chosen.max()) + 1])
            axes = selected(axes, k, chosen)
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
        slices = partial_slices(node, rank)
        if slices is None or not any(masks.get(k) is not None for k in slices):
            return
        starts: list[int | None] = []
        ends: list[int | None] = []
        for k, part in slices.items():
            mask = masks[k]
            if part is None:  # pinned, so nothing moves on this axis
                starts.append(None)
                ends.append(None)
                continue
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
    def _store(node: ir.Node, edit: Edit, k: int, numbers: list[int | None]) -> None:
        if _PARAMETERS[k] in node.attributes:
            edit.set_attribute(node, _PARAMETERS[k], [n for n in numbers if n is not None])
        else:
            edit.set_shape_input(node, k + 1, numbers)


class Split(Rule):
    """Consecutive parts of one axis, by sizes, by number of outputs, or evenly."""

    ops = ("Split",)
    lengths = (1,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.rows(node.inputs[0])
        split = node.attributes.get_int("axis", 0) % len(axes)
        lengths = [walk.dims(output)[split] for output in node.outputs]
        labels = axes[split]
        known = [n for n in lengths if isinstance(n, int)]
        if labels is not None and (len(known) < len(lengths) or sum(known) != len(labels)):
            walk.pin_node(node, "the split sizes are unknown")
            return
        if labels is None:
            for output in node.outputs:
                walk.set(output, axes)
            return
        cuts = np.cumsum(known[:-1])
        if isinstance(labels, Rows):
            walk.balance_parts(labels, cuts.tolist())
        for output, part in zip(node.outputs, np.split(np.arange(len(labels)), cuts), strict=True):
            walk.set(output, selected(axes, split, part))

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

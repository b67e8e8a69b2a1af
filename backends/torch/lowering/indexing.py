"""Ops that find, choose, scatter or mask positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from irprune.backends.torch.lowering.lower import Unsupported
from irprune.backends.torch.lowering.movement import counted

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_REDUCTIONS = {"none": None, "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatter_nd(low: Lowering, node: ir.Node) -> fx.Node:
    reduction = low.text(node, "reduction", "none")
    if reduction not in ("none", "add"):
        raise Unsupported(f"its reduction is {reduction}")
    parts = [low.data(node, k) for k in range(3)]
    return low.call(scatter_nd, *parts, reduction == "add")


def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, add: bool) -> Tensor:
    """Write updates at tuples of positions along the last axis of `index`."""
    x, updates = _alike(x, updates)
    return x.index_put(tuple(index.unbind(-1)), updates, accumulate=add)


def _scatter_elements(low: Lowering, node: ir.Node) -> fx.Node:
    reduction, axis = low.text(node, "reduction", "none"), low.integer(node, "axis", 0)
    index = counted(low, node, axis)
    if reduction not in _REDUCTIONS:
        raise Unsupported(f"its reduction is {reduction}")
    kind = _REDUCTIONS[reduction]
    return low.call(scatter_elements, low.data(node), axis, index, low.data(node, 2), kind)


def scatter_elements(
    x: Tensor, axis: int, index: Tensor, updates: Tensor, kind: str | None
) -> Tensor:
    """Write updates at positions of an axis, or reduce what is there by them."""
    x, updates = _alike(x, updates)
    if kind is None:
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, kind)


def _alike(x: Tensor, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the wider type: under autocast one may be narrow, and scattering wants one."""
    kind = torch.promote_types(x.dtype, updates.dtype)
    return x.to(kind), updates.to(kind)


def _top_k(low: Lowering, node: ir.Node) -> tuple[fx.Node, ...]:
    count: Any = low.integer(node, "k", 0) if "k" in node.attributes else low.sizes(node, 1)[0]
    axis, largest = low.integer(node, "axis", -1), bool(low.integer(node, "largest", 1))
    made = low.call(top_k, low.data(node), count, axis, largest)
    return low.call(_item, made, 0), low.call(_item, made, 1)


def top_k(x: Tensor, count: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """TopK; of equal numbers the first come first, on which torch's own does not settle."""
    values, places = x.sort(dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def _item(parts: Any, index: int) -> Any:
    return parts[index]


def _trilu(low: Lowering, node: ir.Node) -> fx.Node:
    function = torch.triu if low.integer(node, "upper", 1) else torch.tril
    offset = low.ints(node, 1) or [0]
    return low.call(function, low.data(node), offset[0])


def _non_zero(low: Lowering, node: ir.Node) -> fx.Node:
    return low.method("t", low.call(torch.nonzero, low.call(torch.atleast_1d, low.data(node))))


def _one_hot(low: Lowering, node: ir.Node) -> fx.Node:
    depth = low.number(node, 1)
    axis = low.integer(node, "axis", -1)
    return low.call(one_hot, low.data(node), depth, low.data(node, 2), axis)


def one_hot(index: Tensor, depth: Any, values: Tensor, axis: int) -> Tensor:
    """OneHot: `values` holds what stands off and on the position; negative ones count back."""
    positions = torch.arange(int(depth), device=index.device)
    places = torch.where(index < 0, index + int(depth), index)
    shape = [1] * (index.dim() + 1)
    axis %= len(shape)
    shape[axis] = -1
    hot = places.unsqueeze(axis) == positions.view(shape)
    return torch.where(hot, values[1], values[0])


def _max_unpool(low: Lowering, node: ir.Node) -> fx.Node:
    dims = low.dims(node.outputs[0])[2:]
    if not all(isinstance(dim, int) for dim in dims):
        raise Unsupported(f"the size of its output is {dims}")
    return low.call(max_unpool, low.data(node, 0), low.data(node, 1), dims)


def max_unpool(x: Tensor, places: Tensor, sizes: list[int]) -> Tensor:
    """Put maxima back to their places in the whole tensor ``(N, C, *sizes)``, zeros elsewhere."""
    result = x.new_zeros((*x.shape[:2], *sizes))
    return result.flatten().scatter(0, places.flatten(), x.flatten()).view_as(result)


def _compress(low: Lowering, node: ir.Node) -> fx.Node:
    if "axis" not in node.attributes:
        return low.call(compress, low.method("flatten", low.data(node)), low.data(node, 1), 0)
    axis = low.integer(node, "axis", 0)
    return low.call(compress, low.data(node), low.data(node, 1), axis)


def compress(x: Tensor, condition: Tensor, axis: int) -> Tensor:
    """Keep the positions of an axis at which a condition holds."""
    return x.index_select(axis, condition.nonzero().flatten())


def _non_max_suppression(low: Lowering, node: ir.Node) -> fx.Node:
    count, overlap, least = (low.number(node, k) for k in (2, 3, 4))
    centred = bool(low.integer(node, "center_point_box", 0))
    given = [low.data(node, 0), low.data(node, 1)]
    return low.call(non_max_suppression, *given, count or 0, overlap or 0.0, least, centred)


def non_max_suppression(
    boxes: Tensor, scores: Tensor, count: Any, overlap: Any, least: Any, centred: bool
) -> Tensor:
    """Select boxes ``(N, boxes, 4)`` by scores ``(N, classes, boxes)``; rows of three indices."""
    if centred:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = torch.cat([middle - half, middle + half], -1)
    low_corner = torch.minimum(boxes[..., :2], boxes[..., 2:])
    high_corner = torch.maximum(boxes[..., :2], boxes[..., 2:])
    area = (high_corner - low_corner).prod(-1)
    rows: list[list[int]] = []
    for n in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            ranked = scores[n, kind].argsort(descending=True, stable=True)
            if least is not None:
                ranked = ranked[scores[n, kind][ranked] > least]
            taken = 0
            while len(ranked) and taken < int(count):
                best, rest = ranked[0], ranked[1:]
                rows.append([n, kind, int(best)])
                taken += 1
                top = torch.maximum(low_corner[n, best], low_corner[n, rest])
                bottom = torch.minimum(high_corner[n, best], high_corner[n, rest])
                common = (bottom - top).clamp(min=0).prod(-1)
                ranked = rest[common <= overlap * (area[n, best] + area[n, rest] - common)]
    return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _roi_align(low: Lowering, node: ir.Node) -> fx.Node:
    mode = low.text(node, "mode", "avg")
    old = low.opset < 16
    form = low.text(node, "coordinate_transformation_mode", "half_pixel")
    ratio = low.integer(node, "sampling_ratio", 0)
    if mode != "avg":
        raise Unsupported(f"its mode is {mode}")
    return low.call(
        roi_align, *(low.data(node, k) for k in range(3)), low.integer(node, "output_height", 1),
        low.integer(node, "output_width", 1), ratio, low.real(node, "spatial_scale", 1.0),
        0.0 if old or form == "output_half_pixel" else 0.5,
    )  # fmt: skip


def roi_align(
    x: Tensor, rois: Tensor, images: Tensor, height: int, width: int, ratio: int, scale: float,
    shift: float,
) -> Tensor:  # fmt: skip
    """Average bilinear samples in the cells of each region ``(x1, y1, x2, y2)``."""
    results = []
    for roi, image in zip(rois * scale - shift, images.tolist(), strict=True):
        start, size = roi[:2], roi[2:] - roi[:2]
        if not shift:
            size = size.clamp(min=1.0)
        axes = []
        for k, cells in ((1, height), (0, width)):
            samples = ratio if ratio > 0 else max(int(torch.ceil(size[k] / cells)), 0)
            steps = (torch.arange(cells * samples, device=x.device) + 0.5) / max(samples, 1)
            axes.append((start[k] + steps * size[k] / cells, samples))
        (ys, per_row), (xs, per_column) = axes
        if not (per_row and per_column):  # a region without an inside
            results.append(x.new_zeros(x.shape[1], height, width))
            continue
        sampled = _bilinear(x[image], ys, xs)
        results.append(functional.avg_pool2d(sampled, (per_row, per_column)))
    return torch.stack(results) if results else x.new_zeros(0, x.shape[1], height, width)


def _bilinear(plane: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Sample ``(C, H, W)`` at rows and columns; zero beyond one position outside."""
    parts = []
    for at, length in ((ys, plane.shape[1]), (xs, plane.shape[2])):
        inside = ((at >= -1) & (at <= length)).to(plane.dtype)
        at = at.clamp(0, length - 1)
        left = at.floor().long().clamp(max=length - 1)
        right = (left + 1).clamp(max=length - 1)
        parts.append((left, right, at - left, inside))
    (top, bottom, down, rows), (left, right, across, columns) = parts
    upper, lower = plane[:, top], plane[:, bottom]
    mixed = upper * (1 - down)[:, None] + lower * down[:, None]
    result = mixed[:, :, left] * (1 - across) + mixed[:, :, right] * across
    return result * rows[:, None] * columns


RULES: dict[str, Rule] = {
    "ScatterND": _scatter_nd,
    "ScatterElements": _scatter_elements,
    "Scatter": _scatter_elements,
    "TopK": _top_k,
    "Trilu": _trilu,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "MaxUnpool": _max_unpool,
    "Compress": _compress,
    "NonMaxSuppression": _non_max_suppression,
    "RoiAlign": _roi_align,
}

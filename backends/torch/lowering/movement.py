"""Ops that move elements: reshapes, permutations, joins and parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_WHOLE = (1 << 31) - 1


def _reshape(low: Lowering, node: ir.Node) -> fx.Node:
    """The first length of the target is taken from the data where it may be: the batch is free."""
    value = low.input(node, 0)
    assert value is not None
    target = low.ints(node, None, "shape") or low.sizes(node, 1)
    copies = not low.integer(node, "allowzero", 0)
    given = low.input(node, 1)
    if copies and given is not None and low.items(given) is None:
        return low.call(reshaped, low.tensor(value), target)
    known = low.dims(value) if value.shape is not None else []
    sizes = [
        _copied(low, value, k) if copies and size == 0 else size for k, size in enumerate(target)
    ]
    static = all(isinstance(size, int) and size > 0 for size in sizes[1:])
    first = known[0] if known else None
    if sizes and static and (isinstance(sizes[0], fx.Node) or sizes[0] == first):
        sizes[0] = -1
    elif sizes and isinstance(sizes[0], int) and sizes[0] == first:
        sizes[0] = low.method("size", low.tensor(value), 0)
    return low.method("reshape", low.tensor(value), sizes)


def reshaped(x: Tensor, sizes: list[int]) -> Tensor:
    """Reshape to what the graph computes; zeros stand for the lengths that are there."""
    return x.reshape([size or x.shape[k] for k, size in enumerate(sizes)])


def _copied(low: Lowering, value: ir.Value, axis: int) -> Any:
    return low.method("size", low.tensor(value), 0) if axis == 0 else low.length(value, axis)


def _flatten(low: Lowering, node: ir.Node) -> fx.Node:
    rank = low.rank(low.input(node, 0))
    axis = low.integer(node, "axis", 1)
    axis += rank if axis < 0 else 0
    x = low.data(node)
    if axis == 0:
        return low.method("reshape", x, (1, -1))
    made = x if axis == 1 else low.call(torch.flatten, x, 0, axis - 1)
    if axis == rank:
        return low.call(torch.unsqueeze, made, 1)
    return low.call(torch.flatten, made, 1)


def _squeeze(low: Lowering, node: ir.Node) -> fx.Node:
    axes = low.ints(node, 1, "axes")
    if not axes:
        dims = low.dims(low.input(node, 0))
        if not all(isinstance(dim, int) for dim in dims):
            raise Unsupported("it squeezes whatever axes have length 1, and some are unknown")
        axes = [k for k, dim in enumerate(dims) if dim == 1]
    return low.call(torch.squeeze, low.data(node), axes)


def _unsqueeze(low: Lowering, node: ir.Node) -> fx.Node:
    axes = low.ints(node, 1, "axes") or []
    made, rank = low.data(node), low.rank(low.input(node, 0)) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        made = low.call(torch.unsqueeze, made, axis)
    return made


def _transpose(low: Lowering, node: ir.Node) -> fx.Node:
    rank = low.rank(low.input(node, 0))
    order = low.ints(node, None, "perm") or list(range(rank))[::-1]
    return low.call(torch.permute, low.data(node), order)


def _concat(low: Lowering, node: ir.Node) -> fx.Node:
    parts = [low.data(node, k) for k in range(len(node.inputs))]
    return low.call(torch.cat, parts, low.integer(node, "axis", 1))


def _split(low: Lowering, node: ir.Node) -> tuple[fx.Node, ...]:
    axis, parts = low.integer(node, "axis", 0), len(node.outputs)
    length = low.dims(low.input(node, 0))[axis]
    lengths: Any = low.ints(node, 1, "split")
    if lengths is None and isinstance(length, int):
        each = -(-length // parts)
        lengths = [min(each, length - k * each) for k in range(parts)]
    made = (
        low.call(torch.chunk, low.data(node), parts, axis)
        if lengths is None
        else low.call(torch.split, low.data(node), lengths, axis)
    )
    return tuple(low.call(_item, made, k) for k in range(parts))


def _item(parts: Any, index: int) -> Any:
    return parts[index]


def _slice(low: Lowering, node: ir.Node) -> fx.Node:
    rank = low.rank(low.input(node, 0))
    if "starts" in node.attributes:
        starts: list[Any] = low.ints(node, None, "starts") or []
        ends: list[Any] = low.ints(node, None, "ends") or []
    else:
        starts, ends = low.sizes(node, 1), low.sizes(node, 2)
    axes = low.ints(node, 3, "axes") or list(range(len(starts)))
    steps = low.ints(node, 4) or [1] * len(starts)
    made = low.data(node)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= rank
        if step < 0:
            made = low.call(backward, made, axis, start, end, step)
            continue
        whole = isinstance(end, int) and end >= _WHOLE
        if start == 0 and whole and step == 1:
            continue
        part = slice(start, None if whole else end, step if step != 1 else None)
        made = low.call(_part, made, (*[slice(None)] * axis, part))
    return made


def _part(x: Any, index: Any) -> Any:
    return x[index]


def backward(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """Slice with a negative step, which torch lacks."""
    length = x.shape[axis]
    bounds = slice(max(start, -length), None if end < -length else end, step)
    positions = range(length)[bounds]
    return x.index_select(axis, torch.tensor(list(positions), dtype=torch.int64, device=x.device))


def _gather(low: Lowering, node: ir.Node) -> fx.Node:
    """Positions along an axis; one constant position is a selection, a table an embedding."""
    rank, axis = low.rank(low.input(node, 0)), low.integer(node, "axis", 0)
    axis %= rank
    value = low.input(node, 1)
    assert value is not None
    items = low.items(value)
    if items is not None and items.ndim == 0:
        return low.call(torch.select, low.data(node), axis, items.ravel()[0])
    dims = low.dims(value)
    index = counted(low, node, axis)
    if len(dims) == 1 and axis == 0 and rank > 2:
        return low.call(torch.index_select, low.data(node), axis, index)
    if axis == 0 and rank == 2:
        return low.call(functional.embedding, index, low.data(node))
    if len(dims) == 1:
        return low.call(torch.index_select, low.data(node), axis, index)
    return low.call(_part, low.data(node), (*[slice(None)] * axis, index))


def counted(low: Lowering, node: ir.Node, axis: int) -> fx.Node:
    """Return the positions of a node's second input, counted from the start of an axis."""
    data, value = low.input(node, 0), low.input(node, 1)
    assert data is not None
    numbers = low.constant(value)
    if numbers is not None and numbers.min(initial=0) >= 0:
        return low.data(node, 1)
    return low.call(from_start, low.data(node, 1), low.length(data, axis))


def from_start(index: Tensor, length: int) -> Tensor:
    """Count negative positions from the start."""
    return torch.where(index < 0, index + length, index)


def _gather_elements(low: Lowering, node: ir.Node) -> fx.Node:
    axis = low.integer(node, "axis", 0)
    return low.call(torch.gather, low.data(node), axis, counted(low, node, axis))


def _gather_nd(low: Lowering, node: ir.Node) -> fx.Node:
    return low.call(
        gather_nd, low.data(node, 0), low.data(node, 1), low.integer(node, "batch_dims", 0)
    )


def gather_nd(x: Tensor, index: Tensor, batch: int) -> Tensor:
    """Gather by tuples of positions along the last axis of `index`; `batch` axes go along."""
    grids = [
        torch.arange(x.shape[k], device=x.device).view(
            *[-1 if j == k else 1 for j in range(index.dim() - 1)]
        )
        for k in range(batch)
    ]
    return x[(*grids, *index.unbind(-1))]


def _expand(low: Lowering, node: ir.Node) -> fx.Node:
    return low.call(expand, low.data(node), low.sizes(node, 1))


def expand(x: Tensor, sizes: list[int]) -> Tensor:
    """Broadcast both ways, as ONNX does: a length of one gives way."""
    shape = [1] * (len(sizes) - x.dim()) + list(x.shape)
    sizes = [1] * (len(shape) - len(sizes)) + list(sizes)
    target = [a if b == 1 else b for a, b in zip(shape, sizes, strict=True)]
    return x.expand(target)


def _tile(low: Lowering, node: ir.Node) -> fx.Node:
    return low.method("repeat", low.data(node), low.sizes(node, 1))


def _pad(low: Lowering, node: ir.Node) -> fx.Node:
    rank = low.rank(low.input(node, 0))
    pads: Any = low.ints(node, None, "pads") or low.sizes(node, 1)
    axes = low.ints(node, 3) or list(range(rank))
    before, after = [0] * rank, [0] * rank
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[len(axes) + k]
    mode = low.text(node, "mode", "constant")
    fill = low.real(node, "value", 0.0) if low.opset < 11 else low.number(node, 2)
    names = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}
    if mode == "constant":
        first = next((k for k in range(rank) if before[k] != 0 or after[k] != 0), rank)
        if first == rank:
            return low.data(node)
        if isinstance(fill, fx.Node):
            raise Unsupported("the number that it pads with is computed")
        pairs = list(zip(before, after, strict=True))[first:][::-1]
        flat = [pad for pair in pairs for pad in pair]
        return low.call(functional.pad, low.data(node), flat, value=fill)
    if mode not in names:
        raise Unsupported(f"its mode is {mode}")
    return low.call(pad_other, low.data(node), before, after, names[mode])


def pad_other(x: Tensor, before: list[int], after: list[int], mode: str) -> Tensor:
    """Pad by what is in the data, axis by axis; negative pads cut."""
    for axis, (head, tail) in enumerate(zip(before, after, strict=True)):
        if head == 0 and tail == 0:
            continue
        x = _part(x, (*[slice(None)] * axis, slice(max(-head, 0), min(tail, 0) or None)))
        length = x.shape[axis]
        places = torch.arange(-max(head, 0), length + max(tail, 0), device=x.device)
        if mode == "replicate":
            places = places.clamp(0, length - 1)
        elif mode == "circular":
            places = places.remainder(length)
        else:
            places = places.abs()
            places = (length - 1) - ((length - 1) - places).abs()
        x = x.index_select(axis, places)
    return x


def _col2im(low: Lowering, node: ir.Node) -> fx.Node:
    """Sum sliding blocks into an image; torch pads both sides of an axis by the same."""
    block = low.ints(node, 2)
    assert block is not None
    if len(block) != 2:
        raise Unsupported(f"its blocks have {len(block)} axes, torch folds 2")
    pads = low.ints(node, None, "pads") or [0] * 4
    if pads[:2] != pads[2:]:
        raise Unsupported(f"its pads differ by side: {pads}")
    dilations, strides = (low.ints(node, None, name) or [1, 1] for name in ("dilations", "strides"))
    sizes = low.sizes(node, 1)
    return low.call(functional.fold, low.data(node), sizes, block, dilations, pads[:2], strides)


def _centre(low: Lowering, node: ir.Node) -> fx.Node:
    axes = low.ints(node, None, "axes")
    sizes = low.sizes(node, 1)
    return low.call(centred, low.data(node), sizes, axes or list(range(len(sizes))))


def centred(x: Tensor, sizes: list[int], axes: list[int]) -> Tensor:
    """CenterCropPad: cut the middle out, or put zeros around, axis by axis."""
    for axis, size in zip(axes, sizes, strict=True):
        less = x.shape[axis] - size
        if less > 0:
            x = x.narrow(axis, less // 2, size)
        elif less < 0:
            behind = [0, 0] * (x.dim() - 1 - axis % x.dim())
            x = functional.pad(x, [*behind, -less // 2, -less - -less // 2])
    return x


def _reverse_sequence(low: Lowering, node: ir.Node) -> fx.Node:
    axes = (low.integer(node, name, default) for name, default in _SEQUENCE_AXES)
    return low.call(reverse_sequence, low.data(node, 0), low.data(node, 1), *axes)


def reverse_sequence(x: Tensor, lengths: Tensor, batch: int, time: int) -> Tensor:
    """Turn the first so many steps of each example around; of two axes the first is 0 or 1."""
    steps = torch.arange(x.shape[time], device=x.device)
    ends = lengths[:, None]
    order = torch.where(steps < ends, ends - 1 - steps, steps)
    order = order if batch < time else order.t()
    return x.take_along_dim(order.reshape(*order.shape, *[1] * (x.dim() - 2)), time)


_SEQUENCE_AXES = (("batch_axis", 1), ("time_axis", 0))

RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "CenterCropPad": _centre,
    "ReverseSequence": _reverse_sequence,
    "Col2Im": _col2im,
}

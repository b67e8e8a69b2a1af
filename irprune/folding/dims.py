"""Output dimensions that follow from shape inputs known in part, op by op.

onnx infers nothing at all from a shape input that is not constant as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from irprune.folding.values import Call, Length, Lookup, Unknown, dim_elements
from irprune.ops.resize import mode, scales

Dims = list[int | str | None]
"""An output shape: lengths, names of dynamic axes, None where neither is known."""


def followed_dims(node: ir.Node, lookup: Lookup) -> Dims | None:
    """Return what the shape inputs of a node tell of its first output; None for nothing.

    Args:
        node: any node of the default domain.
        lookup: what is known of an input value, None for nothing at all.
    """
    rule = _RULES.get(node.op_type)
    if rule is None:
        return None
    try:
        return rule(Call(node, lookup))
    except Unknown:
        return None


def _asked(index: int, least: int) -> Callable[[Call], Dims]:
    """Input `index` is the output shape; numbers below `least` have a meaning of their own."""

    def rule(call: Call) -> Dims:
        return [_dim(e, least) for e in call.partial(index).ravel()]

    return rule


def _dim(element: Any, least: int = 0) -> int | str | None:
    if isinstance(element, int):
        return element if element >= least else None
    return element.key if isinstance(element, Length) and isinstance(element.key, str) else None


def _expand(call: Call) -> Dims:
    """The shapes of the data and of the input are broadcast against each other."""
    data, asked = _data(call), call.partial(1).ravel().tolist()
    rank = max(len(data), len(asked))
    pairs = zip(
        [*[1] * (rank - len(data)), *data], [*[1] * (rank - len(asked)), *asked], strict=True
    )
    return [
        _dim(e) if d == 1 else d if isinstance(d, int) or e == 1 else e if _above_1(e) else None
        for d, e in pairs
    ]


def _above_1(element: Any) -> bool:
    return isinstance(element, int) and element > 1


def _resize(call: Call) -> Dims:
    """The sizes are those of the output, axes and policies aside; a scale of 1 keeps a length."""
    if {"axes", "keep_aspect_ratio_policy"} & set(call.node.attributes):
        raise Unknown
    if call.has(3):
        return _asked(3, 1)(call)
    if mode(call.node) == "tf_crop_and_resize":  # the region of interest scales as well
        raise Unknown
    dims = _data(call)
    return [d if s == 1 else None for d, s in zip(dims, scales(call.node, len(dims)), strict=True)]


def _data(call: Call) -> Dims:
    value = call.node.inputs[0]
    assert value is not None
    return [_dim(e) for e in dim_elements(value)]


def _axes(call: Call, index: int, attribute: str, default: int, rank: int) -> list[int]:
    axes = call.ints(index, attribute)
    return [axis % rank for axis in (range(default) if axes is None else axes)]


def _pad(call: Call) -> Dims:
    dims = _data(call)
    axes = _axes(call, 3, "", len(dims), len(dims))
    ends = call.partial(1).ravel()
    for axis, before, after in zip(axes, ends, ends[len(axes) :], strict=False):
        dim = dims[axis]
        if isinstance(dim, int) and isinstance(before, int) and isinstance(after, int):
            dims[axis] = dim + before + after
        elif before != 0 or after != 0:
            dims[axis] = None
    return dims


def _slice(call: Call) -> Dims:
    dims = _data(call)
    starts, ends = call.partial(1).ravel(), call.partial(2).ravel()
    steps = call.ints(4) or [1] * len(starts)
    axes = _axes(call, 3, "axes", len(starts), len(dims))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        dims[axis] = _sliced(dims[axis], start, end, step)
    return dims


def _sliced(dim: int | str | None, start: Any, end: Any, step: int) -> int | str | None:
    """Return the length of a sliced axis: its own, a number, or None for one computed later."""
    if start == 0 and step == 1 and (_dim(end) == dim or _unbounded(end)):
        return dim
    if not (isinstance(dim, int) and isinstance(start, int) and isinstance(end, int)):
        return None
    # An end before the first position is clamped to it, which Python spells None.
    stop = None if step < 0 and end < -dim else end
    return len(range(dim)[start:stop:step])


def _unbounded(end: Any) -> bool:
    return isinstance(end, int) and end >= 2**31 - 1


def _tile(call: Call) -> Dims:
    return [
        d * e if isinstance(d, int) and isinstance(e, int) else d if e == 1 else None
        for d, e in zip(_data(call), call.partial(1).ravel(), strict=True)
    ]


_RULES: dict[str, Callable[[Call], Dims]] = {
    "ConstantOfShape": _asked(0, 0),
    "Expand": _expand,
    "Pad": _pad,
    "Reshape": _asked(1, 1),
    "Resize": _resize,
    "Slice": _slice,
    "Tile": _tile,
    "Upsample": _resize,
}

FOLLOWED = frozenset(_RULES)
"""Ops whose output shape hangs on the contents of an input."""

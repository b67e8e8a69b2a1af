"""Integer tensors of shape arithmetic, known in part: numbers beside lengths of dynamic axes.

A partial value is a numpy array of objects, of the shape of the tensor that it describes. Each
element is an int, a bool, a `Length`, or an `Element` of some tensor that only the run knows.
Inside `partial_outputs` an element may also be None: nothing is known of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.shapes import unnamed

Partial = npt.NDArray[np.object_]
Lookup = Callable[[ir.Value], Partial | None]


@dataclass(frozen=True)
class Length:
    """The length of a dynamic axis. Lengths of equally named dimensions are equal."""

    key: str | tuple[ir.Value, int]
    value: ir.Value = field(compare=False)
    axis: int = field(compare=False)


@dataclass(frozen=True)
class Element:
    """The element at a flat position of an integer tensor of rank 0 or 1."""

    value: ir.Value
    position: int


class Unknown(Exception):
    """The outputs of a node cannot be described by partial values."""


def dim_elements(value: ir.Value) -> list[int | Length]:
    """Return the dimensions of a value; raises Unknown without a rank.

    Names of dimensions that a graph output declares are not trusted to be those of the inputs.
    """
    if value.shape is None:
        raise Unknown
    return [
        d if isinstance(d, int) else Length(_key(value, k, d.value), value, k)
        for k, d in enumerate(value.shape.dims)
    ]


def _key(value: ir.Value, axis: int, name: str | None) -> str | tuple[ir.Value, int]:
    if value.is_graph_output():
        return value, axis
    if not name and value.is_graph_input():
        name = unnamed(value.name or "", axis)
    return name or (value, axis)


@dataclass(frozen=True)
class Call:
    """A node as its evaluation sees it: inputs and attributes, wherever the opset puts them."""

    node: ir.Node
    lookup: Lookup

    def has(self, index: int) -> bool:
        return len(self.node.inputs) > index and self.node.inputs[index] is not None

    def partial(self, index: int) -> Partial:
        """Return an input; raises Unknown where nothing is known about it."""
        value = self.node.inputs[index] if self.has(index) else None
        found = None if value is None else self.lookup(value)
        if found is None:
            raise Unknown
        return found

    def all(self) -> list[Partial]:
        return [self.partial(k) for k in range(len(self.node.inputs))]

    def ints(self, index: int, attribute: str = "") -> list[int] | None:
        """Return the numbers of an attribute or input, None where neither is there."""
        if attribute in self.node.attributes:
            return [int(n) for n in self.node.attributes[attribute].as_ints()]
        return whole(self.partial(index)) if self.has(index) else None

    def int(self, attribute: str, default: int) -> int:
        return self.node.attributes.get_int(attribute, default)


def whole(partial: Partial) -> list[int]:
    """Return the elements, flat, when all are numbers; raises Unknown otherwise."""
    elements = partial.ravel().tolist()
    if not all(isinstance(e, int) for e in elements):
        raise Unknown
    return elements


def partial_of(numbers: Sequence[Any] | npt.NDArray[Any], shape: Sequence[int]) -> Partial:
    """Return elements as a partial value of the given shape."""
    return np.fromiter(numbers, np.object_, len(numbers)).reshape(shape)


def partial_outputs(node: ir.Node, lookup: Lookup) -> list[Partial] | None:
    """Return what is known of the outputs of a node, None where nothing can be.

    Args:
        node: any node of the default domain.
        lookup: what is known of an input value, None for nothing at all.
    """
    rule = _RULES.get(node.op_type)
    if rule is None:
        return None
    try:
        found = rule(Call(node, lookup))
    except Unknown:
        return None
    return found if isinstance(found, list) else [found]


# Elements


def _add(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return a if b == 0 else b if a == 0 else None


def _sub(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return a if b == 0 else 0 if a == b else None


def _mul(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return 0 if 0 in (a, b) else a if b == 1 else b if a == 1 else None


def _div(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return a if b == 1 else None


def _min(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else a if a == b else None


def _max(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    for length, bound in ((a, b), (b, a)):
        if isinstance(length, Length) and isinstance(bound, int) and bound <= 0:
            return length
    return a if a == b else None


def _equal(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    for length, other in ((a, b), (b, a)):
        if isinstance(length, Length) and isinstance(other, int) and other < 0:
            return False
    return True if a == b else None


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    return a if a == b else None


def _numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function for numbers alone; of anything else its result is not known."""

    def apply(*elements: Any) -> Any:
        return function(*elements) if all(isinstance(e, int) for e in elements) else None

    return apply


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return the function of any number of elements, taken two at a time."""

    def apply(*elements: Any) -> Any:
        result = elements[0]
        for element in elements[1:]:
            result = None if result is None else function(result, element)
        return result

    return apply


# Ops


def _elementwise(function: Callable[..., Any]) -> Callable[[Call], Partial]:
    def rule(call: Call) -> Partial:
        inputs = np.broadcast_arrays(*call.all())
        rows = zip(*(part.ravel() for part in inputs), strict=True)
        return partial_of([function(*row) for row in rows], inputs[0].shape)

    return rule


def _reduce(function: Callable[[Any, Any], Any], empty: int) -> Callable[[Call], Partial]:
    def rule(call: Call) -> Partial:
        data, axes = call.partial(0), call.ints(1, "axes")
        if data.ndim != 1 or (not axes and call.int("noop_with_empty_axes", 0)):
            raise Unknown
        result = _fold(function)(empty, *data.tolist())
        return partial_of([result], [1] if call.int("keepdims", 1) else [])

    return rule


def _shape(call: Call) -> Partial:
    value = call.node.inputs[0]
    assert value is not None
    dims = dim_elements(value)
    part = dims[call.int("start", 0) : call.int("end", len(dims))]
    return partial_of(part, [len(part)])


def _size(call: Call) -> Partial:
    value = call.node.inputs[0]
    assert value is not None
    return partial_of([_fold(_mul)(1, *dim_elements(value))], [])


def _gather(call: Call) -> Partial:
    data, indices = call.partial(0), call.partial(1)
    axis, numbers = call.int("axis", 0), whole(indices)
    if not data.ndim or any(not -data.shape[axis] <= n < data.shape[axis] for n in numbers):
        raise Unknown
    where = np.array(numbers, np.int64).reshape(indices.shape)
    return np.asarray(np.take(data, where, axis), np.object_)


def _slice(call: Call) -> Partial:
    data = call.partial(0)
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    assert starts is not None and ends is not None
    axes = call.ints(3, "axes") or range(len(starts))
    steps = call.ints(4) or [1] * len(starts)
    parts = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # An end before the first position is clamped to it, which Python spells None.
        before = step < 0 and end < -data.shape[axis]
        parts[axis] = slice(start, None if before else end, step)
    return data[tuple(parts)]


def _split(call: Call) -> list[Partial]:
    data, axis = call.partial(0), call.int("axis", 0)
    sizes = call.ints(1, "split")
    if sizes is None:
        count = len(call.node.outputs)
        chunk = -(-data.shape[axis] // count)
        sizes = [min(chunk, data.shape[axis] - k * chunk) for k in range(count)]
    return list(np.split(data, np.cumsum(sizes)[:-1], axis))


def _concat(call: Call) -> Partial:
    return np.concatenate(call.all(), axis=call.int("axis", 0))


def _squeeze(call: Call) -> Partial:
    data, axes = call.partial(0), call.ints(1, "axes")
    return np.squeeze(data, None if axes is None else tuple(axes))


def _unsqueeze(call: Call) -> Partial:
    axes = call.ints(1, "axes")
    assert axes is not None
    return np.expand_dims(call.partial(0), tuple(axes))


def _reshape(call: Call) -> Partial:
    data, target = call.partial(0), call.ints(1)
    assert target is not None
    if not call.int("allowzero", 0):
        target = [data.shape[k] if n == 0 else n for k, n in enumerate(target)]
    return data.reshape(target)


def _transpose(call: Call) -> Partial:
    return np.transpose(call.partial(0), call.ints(1, "perm"))


def _expand(call: Call) -> Partial:
    data, target = call.partial(0), call.ints(1)
    assert target is not None
    if prod(target) > _MOST:
        raise Unknown
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(target)))


def _cast(call: Call) -> Partial:
    """Numbers and lengths are the same in any integer type; elements of a tensor have its own."""
    data, to = call.partial(0), ir.DataType(call.int("to", 0))
    value = call.node.inputs[0]
    assert value is not None
    if to == value.dtype:
        return data
    if to == ir.DataType.BOOL:
        kept: list[Any] = [bool(e) if isinstance(e, int) else None for e in data.ravel()]
    elif to in (ir.DataType.INT32, ir.DataType.INT64):
        kept = [
            int(e) if isinstance(e, int) else e if isinstance(e, Length) else None
            for e in data.ravel()
        ]
    else:
        raise Unknown
    return partial_of(kept, data.shape)


def _mod(call: Call) -> Partial:
    if call.int("fmod", 0):
        raise Unknown
    return _elementwise(_numbers(lambda a, b: a % b if b else None))(call)


def _identity(call: Call) -> Partial:
    return call.partial(0)


_MOST = 1 << 10

_RULES: dict[str, Callable[[Call], Partial | list[Partial]]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Expand": _expand,
    "Cast": _cast,
    "Identity": _identity,
    "Add": _elementwise(_add),
    "Sub": _elementwise(_sub),
    "Mul": _elementwise(_mul),
    "Div": _elementwise(_div),
    "Mod": _mod,
    "Min": _elementwise(_fold(_min)),
    "Max": _elementwise(_fold(_max)),
    "Equal": _elementwise(_equal),
    "Where": _elementwise(_where),
    "Neg": _elementwise(_numbers(lambda a: -a)),
    "Abs": _elementwise(_numbers(abs)),
    "Not": _elementwise(_numbers(lambda a: not a)),
    "And": _elementwise(_numbers(lambda a, b: a and b)),
    "Or": _elementwise(_numbers(lambda a, b: a or b)),
    "Greater": _elementwise(_numbers(lambda a, b: a > b)),
    "Less": _elementwise(_numbers(lambda a, b: a < b)),
    "ReduceProd": _reduce(_mul, 1),
    "ReduceSum": _reduce(_add, 0),
}

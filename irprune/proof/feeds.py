"""Sample inputs for a model: sizes for its open axes, numbers in ranges that networks see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.errors import IrpruneError
from irprune.ops import rule_for
from irprune.queries import constant_of, dims_of

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Lengths for open axes: `batch` for batch axes, `spatial` for all others."""

    batch: int = 2
    spatial: int = 64


LADDER = (
    *(Sizes(batch, spatial) for spatial in (64, 224) for batch in (2, 1)),
    *(Sizes(1, spatial) for spatial in (32, 128, 256, 320, 512, 640, 1024, 16)),
)
"""Sizes to try, in this order, where a model runs with some sizes only."""

_STYLES: tuple[Callable[[np.random.Generator, Shape], Array], ...] = (
    lambda rng, shape: rng.standard_normal(shape),
    lambda rng, shape: rng.random(shape),
    lambda rng, shape: rng.uniform(-1, 1, shape),
    lambda rng, shape: rng.uniform(0, 255, shape),
)
"""Floating-point ranges: normalised data, and pixels in [0, 1), [-1, 1) and [0, 255)."""

_CARRIERS = frozenset(
    ("Cast", "Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice")
) | {"Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
"""Ops whose first output holds numbers of their inputs."""


def make_feeds(
    model: ir.Model,
    shapes: Mapping[str, Shape],
    seed: int,
    feeds: Mapping[str, Array] | None = None,
    style: int = 0,
    sizes: Sizes | None = None,
) -> dict[str, Array]:
    """Return one array per graph input, in the order and of the dtype that the model declares.

    What the user gives wins: `feeds` are arrays, `shapes` sizes, both by input name. Other open
    axes take `sizes` (a symbol has the same length everywhere, and a channel axis the length
    that its consumer needs); other numbers are drawn from `seed` in the range `style` (0: standard
    normal, 1: [0, 1), 2: [-1, 1), 3: [0, 255), and so on round). Integers that index a table stay
    within it; other ones are 0..255 for uint8 and for images (three axes and more), else 0 and 1.

    Raises:
        IrpruneError: `feeds` or `shapes` name no input or do not fit it, or an input is no numeric
            tensor and not in `feeds`.
    """
    feeds = dict(feeds or {})
    chosen = input_shapes(model, shapes, feeds, sizes or Sizes())
    result: dict[str, Array] = {}
    for position, value in enumerate(graph_inputs(model.graph)):
        name = value.name or ""
        rng = np.random.default_rng((seed % 2**63, style, position))
        given = feeds.get(name)
        result[name] = _draw(value, chosen[name], rng, style) if given is None else given
    return result


def describe_feeds(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """Return the shape, dtype and open (not static) axes of each input, fit for JSON."""
    return {
        value.name or "": {
            "shape": list(feeds[value.name or ""].shape),
            "dtype": str(feeds[value.name or ""].dtype),
            "open_axes": [k for k, d in enumerate(dims_of(value) or []) if not isinstance(d, int)],
        }
        for value in graph_inputs(model.graph)
    }


def graph_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Return the inputs that a run needs: those that no initializer gives a value."""
    return [value for value in graph.inputs if not value.is_initializer()]


def open_inputs(graph: ir.Graph) -> set[str]:
    """Return the names of the inputs with an axis whose length the model leaves open."""
    return {
        value.name or ""
        for value in graph_inputs(graph)
        if any(not isinstance(d, int) for d in dims_of(value) or (None,))
    }


def check_batch(
    model: ir.Model, shapes: Mapping[str, Shape], feeds: Mapping[str, Array], batch: int
) -> None:
    """Raise IrpruneError where the inputs cannot have that batch: fixed by the model or the user.

    The batch is the first axis of the inputs that leave it open, of the first input if none does.
    """
    inputs = graph_inputs(model.graph)
    opened = [v for v in inputs if (d := dims_of(v)) is None or (d and not isinstance(d[0], int))]
    chosen = input_shapes(model, shapes, feeds, Sizes(batch))
    for value in opened or inputs[:1]:
        name = value.name or ""
        if chosen[name][:1] != (batch,):
            mend = "export the model with a dynamic batch axis"
            given = name in shapes or name in feeds
            raise IrpruneError(
                f"input {name} has the shape {list(chosen[name])}, not a batch of {batch}",
                mend="leave its size to --batch" if given else mend,
            )


def input_shapes(
    model: ir.Model,
    shapes: Mapping[str, Shape],
    feeds: Mapping[str, Array],
    sizes: Sizes,
) -> dict[str, Shape]:
    """Return the shape of every graph input; IrpruneError as `make_feeds` says."""
    inputs = graph_inputs(model.graph)
    symbols: dict[str, int] = {}
    given: dict[str, Shape] = {}
    for name in (*feeds, *shapes):
        value = _find(inputs, name)
        if name in feeds:
            _check_dtype(value, feeds[name], inputs)
        for shape in (s for s in (feeds.get(name), shapes.get(name)) if s is not None):
            given[name] = tuple(shape.shape) if isinstance(shape, np.ndarray) else tuple(shape)
            _bind(value, given[name], symbols, inputs)
        if name in feeds and name in shapes and tuple(shapes[name]) != feeds[name].shape:
            raise IrpruneError(
                f"input {name} is given as an array of shape {feeds[name].shape} "
                f"and as --shape {tuple(shapes[name])}"
            )
    batch = {dims[0] for v in inputs if (dims := dims_of(v)) and isinstance(dims[0], str)}
    result: dict[str, Shape] = {}
    for value in inputs:
        name, dims = value.name or "", dims_of(value)
        if name not in given:
            if dims is None:
                raise IrpruneError(f"input {name} has no known rank", mend=f"give --shape {name}=…")
            given[name] = tuple(
                d if isinstance(d, int) else _size(value, k, d, symbols, batch, sizes)
                for k, d in enumerate(dims)
            )
            _bind(value, given[name], symbols, inputs)
        result[name] = given[name]
    return result


def _find(inputs: Sequence[ir.Value], name: str) -> ir.Value:
    for value in inputs:
        if value.name == name:
            return value
    raise IrpruneError(f"the model has no input {name}", mend=_listing(inputs))


def _listing(inputs: Sequence[ir.Value]) -> str:
    described = (
        f"{v.name}: {'?' if v.dtype is None else v.dtype.name.lower()}{dims_of(v) or []}"
        for v in inputs
    )
    return f"its inputs are {', '.join(described)}"


def _check_dtype(value: ir.Value, array: Array, inputs: Sequence[ir.Value]) -> None:
    text = value.dtype == ir.DataType.STRING and array.dtype.kind in "OUS"
    if not text and value.dtype is not None and value.dtype.numpy() != array.dtype:
        raise IrpruneError(
            f"input {value.name} is given as {array.dtype}, the model wants "
            f"{value.dtype.name.lower()}",
            mend=_listing(inputs),
        )


def _bind(
    value: ir.Value, shape: Shape, symbols: dict[str, int], inputs: Sequence[ir.Value]
) -> None:
    """Check a shape against an input and note the lengths of its symbols."""
    dims = dims_of(value)
    if dims is None:
        return
    fits = len(dims) == len(shape) and all(
        (symbols.setdefault(d, n) if isinstance(d, str) else n if d is None else d) == n
        for d, n in zip(dims, shape, strict=True)
    )
    if not fits:
        bound = {d: symbols[d] for d in dims if isinstance(d, str) and d in symbols}
        where = f" with {', '.join(f'{k} = {n}' for k, n in bound.items())}" if bound else ""
        raise IrpruneError(
            f"shape {list(shape)} does not fit input {value.name} of shape {dims}{where}",
            mend=_listing(inputs),
        )


def _size(
    value: ir.Value,
    axis: int,
    dim: str | None,
    symbols: Mapping[str, int],
    batch: set[str],
    sizes: Sizes,
) -> int:
    """Return the length of one open axis."""
    if dim is not None and dim in symbols:
        return symbols[dim]
    needed = _needed(value, axis)
    if needed is not None:
        return needed
    dims = dims_of(value) or []
    # The state of a recurrent layer is (layers * directions, batch, features).
    state = axis == 1 and len(dims) == 3 and isinstance(dims[0], int) and dims[0] > 1
    return sizes.batch if axis == 0 or dim in batch or state else sizes.spatial


def _needed(value: ir.Value, axis: int) -> int | None:
    """Return the length that a contraction with a weight asks of an axis of its data."""
    for node, index in value.uses():
        if any(v is not None and v.shape is None for v in node.inputs):
            continue
        for contraction in rule_for(node).contractions(node):
            if (contraction.data, contraction.axis) != (index, axis) or contraction.weight is None:
                continue
            weight = node.inputs[contraction.weight]
            dims = [] if weight is None else dims_of(weight) or []
            length = dims[contraction.weight_axis]
            if isinstance(length, int):
                groups = node.attributes.get_int("group", 1) if node.op_type == "Conv" else 1
                return length * groups
    return None


def _draw(value: ir.Value, shape: Shape, rng: np.random.Generator, style: int) -> Array:
    """Draw the numbers of one input."""
    kind = value.dtype
    if kind == ir.DataType.BOOL:
        return np.asarray(rng.integers(0, 2, shape), np.bool_)
    if kind is None or not (kind.is_floating_point() or kind.is_integer()):
        described = "an unknown type" if kind is None else f"type {kind.name.lower()}"
        raise IrpruneError(
            f"input {value.name} has {described}, no numbers can be chosen for it",
            mend="give it with --inputs feeds.npz",
        )
    dtype, limit = kind.numpy(), _table(value)
    if limit is not None:
        return np.asarray(rng.integers(0, limit, shape), dtype)
    if kind.is_floating_point():
        return np.asarray(_STYLES[style % len(_STYLES)](rng, shape), dtype)
    if dtype == np.uint8 or len(shape) > 2:
        return np.asarray(rng.integers(0, min(256, np.iinfo(dtype).max + 1), shape), dtype)
    return np.asarray(rng.integers(0 if shape else 1, 2, shape), dtype)


def _table(value: ir.Value) -> int | None:
    """Return the length of the shortest table that the numbers of an input index, if any."""
    limits: list[int] = []
    seen, frontier = {value}, [value]
    while frontier:
        for node, index in frontier.pop().uses():
            limit = _indexed(node, index)
            if limit is not None:
                limits.append(limit)
            elif node.op_type in _CARRIERS and (index == 0 or node.op_type == "Concat"):
                frontier += [v for v in node.outputs if v not in seen]
                seen.update(node.outputs)
    return min(limits, default=None)


def _indexed(node: ir.Node, index: int) -> int | None:
    """Return the length of the axis that a node indexes with its input number `index`."""
    data = node.inputs[0]
    if node.op_type in ("Gather", "GatherElements") and index == 1 and data is not None:
        dims = dims_of(data)
        length = dims[node.attributes.get_int("axis", 0)] if dims else None
        return length if isinstance(length, int) else None
    if node.op_type == "OneHot" and index == 0:
        depth = constant_of(node.inputs[1])
        return None if depth is None else int(depth.item())
    return None

"""What two graphs compute under the same names, and how it can be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irprune.plan import Kept
from irprune.queries import Dim, dims_of

LENGTHS = frozenset(("Shape", "Size"))
_POINTER = 8


@dataclass(frozen=True)
class Activation:
    """A tensor that both graphs compute under one name."""

    name: str
    masks: dict[int, Kept]
    """Kept positions by axis."""
    dims: tuple[Dim, ...] | None
    """Dimensions in the base, as far as they are known."""
    itemsize: float
    """Bytes of one element in the base."""
    rounded: bool
    """Integers or booleans made from floating-point numbers, which rounding can tip over."""
    computed: bool
    """A node of the pruned graph makes it."""

    @property
    def open(self) -> bool:
        """Whether the base leaves its size open."""
        return self.dims is None or any(not isinstance(d, int) for d in self.dims)

    def size(self, shape: Sequence[Dim] | None) -> int:
        """Return the bytes that it has in the base with a shape; unknown lengths count as 1."""
        known = (d for d in shape or () if isinstance(d, int))
        return math.ceil(math.prod(known) * self.itemsize)


def common_activations(
    base: ir.Graph, pruned: ir.Graph, masks: Mapping[str, dict[int, Kept]]
) -> dict[str, Activation]:
    """Return by name what both graphs compute, in the order of the pruned graph.

    All graph outputs, all floating-point tensors, and integers and booleans unless they derive
    from lengths (which pruning may change). What is no tensor is left out, and so are inner
    activations of unknown type.
    """
    before = {value.name or "": value for value in _results(base)}
    lengths = _marked(base, _from_lengths) | _marked(pruned, _from_lengths)
    floats = _marked(base, _from_floats) | _marked(pruned, _from_floats)
    found: dict[str, Activation] = {}
    for value in _results(pruned):
        name = value.name or ""
        old = before.get(name)
        if old is None or not isinstance(value.type or old.type, ir.TensorType | None):
            continue
        if value.is_graph_output() or _telling(value.dtype or old.dtype, name in lengths):
            dims, computed = dims_of(old), value.producer() is not None
            found[name] = Activation(
                name,
                masks.get(name, {}),
                None if dims is None else tuple(dims),
                _itemsize(old.dtype),
                name in floats,
                computed,
            )
    return found


def _itemsize(dtype: ir.DataType | None) -> float:
    texts = (None, ir.DataType.STRING, ir.DataType.UNDEFINED)
    return _POINTER if dtype is None or dtype in texts else dtype.itemsize


def _telling(dtype: ir.DataType | None, of_lengths: bool) -> bool:
    if dtype is None or dtype.is_floating_point():
        return dtype is not None
    return (dtype.is_integer() or dtype == ir.DataType.BOOL) and not of_lengths


def node_outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    """Iterate over the named outputs of the nodes of the main graph."""
    return (value for node in graph for value in node.outputs if value.name)


def inputs_of(node: ir.Node) -> Iterator[ir.Value]:
    """Iterate over the inputs that are given."""
    return (value for value in node.inputs if value is not None)


def _results(graph: ir.Graph) -> Iterator[ir.Value]:
    """Iterate over node outputs, then graph outputs that no node makes."""
    yield from node_outputs(graph)
    yield from (value for value in graph.outputs if value.producer() is None)


def _from_lengths(node: ir.Node, marked: set[str]) -> bool:
    return node.op_type in LENGTHS or any(v.name in marked for v in inputs_of(node))


def _from_floats(node: ir.Node, marked: set[str]) -> bool:
    return node.op_type not in LENGTHS and any(
        v.name in marked or (v.dtype is not None and v.dtype.is_floating_point())
        for v in inputs_of(node)
    )


def _marked(graph: ir.Graph, made_from: Callable[[ir.Node, set[str]], bool]) -> set[str]:
    """Return the names of integer and boolean node outputs that a test marks, transitively."""
    marked: set[str] = set()
    for node in graph:
        if made_from(node, marked):
            marked.update(
                value.name or ""
                for value in node.outputs
                if value.dtype is None or not value.dtype.is_floating_point()
            )
    return marked

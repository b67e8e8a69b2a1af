"""Graphs made ready to be compared: float32 throughout, activations exposed as graph outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.plan import Mask
from irprune.walk import Dim, dims_of

HALF = frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16))
_TYPE_ATTRIBUTES = ("to", "dtype")
_LENGTHS = frozenset(("Shape", "Size"))
_FIRST_IR_VERSION = 4
"""Since this version an initializer is a constant unless it is listed as a graph input."""


class Kind(Enum):
    """How the numbers of an activation are compared."""

    FLOAT = "float"
    EXACT = "exact"
    ROUNDED = "rounded"
    """Integers or booleans made from floating-point numbers, which rounding can tip over."""


@dataclass(frozen=True)
class Activation:
    """A tensor that both graphs compute under one name."""

    name: str
    kind: Kind
    masks: dict[int, Mask]
    """Kept positions by axis, each of shape ``(positions,)``."""
    dims: tuple[Dim, ...]
    """Dimensions in the base, as far as they are known."""
    computed: bool
    """A node of the pruned graph makes it."""

    def elements(self, symbols: Mapping[str, int]) -> int:
        """Return the number of elements in the base; unknown lengths count as 1."""
        return math.prod(d if isinstance(d, int) else symbols.get(d or "", 1) for d in self.dims)


def common_activations(
    base: ir.Graph, pruned: ir.Graph, masks: Mapping[str, dict[int, Mask]]
) -> list[Activation]:
    """Return what to compare, in the order of the pruned graph: what both graphs compute.

    All floating-point tensors, all graph outputs, and integers and booleans unless they derive
    from lengths (which pruning may change). Tensors of unknown type and what is no tensor are
    left out.
    """
    before = {value.name: value for value in _results(base)}
    lengths = _descendants(base, _from_lengths) | _descendants(pruned, _from_lengths)
    floats = _descendants(base, _from_floats)
    result = []
    for value in _results(pruned):
        old = before.get(value.name)
        dtype = value.dtype or (None if old is None else old.dtype)
        if old is None or not isinstance(value.type or old.type, ir.TensorType | None):
            continue
        if not value.is_graph_output() and (dtype is None or not _comparable(dtype)):
            continue
        if dtype is not None and dtype.is_floating_point():
            kind = Kind.FLOAT
        elif value.is_graph_output() or value.name not in lengths:
            kind = Kind.ROUNDED if value.name in floats else Kind.EXACT
        else:
            continue
        name = value.name or ""
        dims = tuple(dims_of(old) or ())
        computed = value.producer() is not None
        result.append(Activation(name, kind, masks.get(name, {}), dims, computed))
    return result


def _node_outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs if value.name)


def _results(graph: ir.Graph) -> Iterator[ir.Value]:
    """Iterate over node outputs, then graph outputs that no node makes."""
    yield from _node_outputs(graph)
    yield from (value for value in graph.outputs if value.producer() is None)


def _comparable(dtype: ir.DataType) -> bool:
    return dtype.is_floating_point() or dtype.is_integer() or dtype == ir.DataType.BOOL


def _from_lengths(node: ir.Node, marked: set[str]) -> bool:
    return node.op_type in _LENGTHS or any(v.name in marked for v in _inputs(node))


def _from_floats(node: ir.Node, marked: set[str]) -> bool:
    return node.op_type not in _LENGTHS and any(
        v.name in marked or (v.dtype is not None and v.dtype.is_floating_point())
        for v in _inputs(node)
    )


def _descendants(graph: ir.Graph, made_from: Callable[[ir.Node, set[str]], bool]) -> set[str]:
    """Return the names of integer and boolean node outputs that a test marks, transitively."""
    marked: set[str] = set()
    for node in graph:
        if made_from(node, marked):
            marked.update(
                v.name
                for v in node.outputs
                if v.name and (v.dtype is None or not v.dtype.is_floating_point())
            )
    return marked


def _inputs(node: ir.Node) -> Iterator[ir.Value]:
    return (value for value in node.inputs if value is not None)


def has_half(model: ir.Model) -> bool:
    """Return whether the main graph holds float16 or bfloat16 tensors."""
    graph = model.graph
    values = (*graph.inputs, *graph.initializers.values(), *_node_outputs(graph))
    return any(value.dtype in HALF for value in values)


def promote(model: ir.Model) -> None:
    """Compute in float32 what the model computes in float16 or bfloat16, in place.

    Widening is exact, so a graph and its compaction stay what they are to each other.
    """
    for graph in model.graphs():
        values = {*graph.inputs, *graph.initializers.values()}
        for node in graph:
            values.update(node.outputs)
            for name, attribute in list(node.attributes.items()):
                widened = _widen_attribute(name, attribute)
                if widened is not None:
                    node.attributes[name] = widened
        for value in values:
            if value.dtype in HALF:
                value.type = ir.TensorType(ir.DataType.FLOAT)  # types are shared with the original
                if value.const_value is not None:
                    value.const_value = _widen(value.const_value)


def _widen(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(np.asarray(tensor.numpy(), np.float32), name=tensor.name)


def _widen_attribute(name: str, attribute: ir.Attr) -> ir.Attr | None:
    """Return the attribute for float32, None where it says nothing about half precision."""
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALF:
        return ir.AttrTensor(name, _widen(attribute.as_tensor()))
    if name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
        return ir.AttrInt64(name, ir.DataType.FLOAT) if attribute.as_int() in HALF else None
    return None


def write_probe(
    model: ir.Model, path: Path, exposed: Iterable[str], overridable: Sequence[str] = ()
) -> None:
    """Write a model file whose activations `exposed` are graph outputs as well; changes `model`.

    The initializers `overridable` become inputs with a default, so that a run can replace them.
    Stated shapes of activations are dropped: the runtime finds out for itself.
    """
    graph = model.graph
    produced = {value.name: value for value in _node_outputs(graph)}
    outputs = {value.name for value in graph.outputs}
    for value in produced.values():
        if not value.is_graph_output():
            value.shape = None
    graph.outputs.extend(produced[name] for name in exposed if name not in outputs)
    graph.inputs.extend(graph.initializers[name] for name in overridable)
    _save(model, path)


def write_steps(model: ir.Model, path: Path, names: Sequence[str], cut: Collection[str]) -> None:
    """Write a model file that computes the node outputs `names`, the activations `cut` given.

    Each activation in `cut` becomes a graph input, which its readers read instead; the node
    outputs `names` become the graph outputs under the names `step_name` gives. Changes `model`.
    """
    graph = model.graph
    produced = {value.name or "": value for value in _node_outputs(graph)}
    graph.outputs.clear()
    for name in {*cut, *names}:
        value = produced[name]
        value.name = step_name(name)
        if name in cut:
            given = ir.Value(name=name, type=value.type, shape=value.shape)
            value.replace_all_uses_with(given)
            graph.inputs.append(given)
    graph.outputs.extend(produced[name] for name in names)
    _save(model, path)


def step_name(name: str) -> str:
    """Return the name of a computed activation where the plain name is the given one."""
    return f"irprune_step/{name}"


def sources(graph: ir.Graph, names: Iterable[str], known: Collection[str]) -> set[str]:
    """Return the activations in `known` that the node outputs `names` are computed from."""
    produced = {value.name or "": value for value in _node_outputs(graph)}
    found: set[str] = set()
    seen: set[ir.Node] = set()
    stack = [produced[name].producer() for name in names]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for value in _inputs(node):
            if value.name in known and value.producer() is not None:
                found.add(value.name or "")
            else:
                stack.append(value.producer())
    return found


def _save(model: ir.Model, path: Path) -> None:
    model.ir_version = max(model.ir_version or 0, _FIRST_IR_VERSION)
    ir.save(model, path, external_data=f"{path.name}.data")


def widened(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the feeds for a promoted model."""
    half = {dtype.numpy() for dtype in HALF}
    return {
        name: array.astype(np.float32) if array.dtype in half else array
        for name, array in feeds.items()
    }

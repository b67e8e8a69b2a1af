"""One walk over a graph in topological order: facts about every value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import MOST_SLICES, Array, Facts, digest
from irprune.facts.linear import Linear, linear_of
from irprune.queries import Dim, constant_of, dims_of

Transfer = Callable[[ir.Node, "Flow"], Sequence["Facts | None"]]
"""Returns facts about each output of a node; None: nothing is known about it."""

_FAMILIES = ("moves", "pointwise", "sums", "windows")
_SIMPLE = (ir.AttributeType.FLOAT, ir.AttributeType.INT, ir.AttributeType.STRING)
_LISTS = (ir.AttributeType.FLOATS, ir.AttributeType.INTS, ir.AttributeType.STRINGS)


class Flow:
    """Facts about every value of a graph; about what an unknown op computes, nothing is known.

    All activations are taken to be finite, so a product with zero is zero. With `nodes`, only
    what these compute is looked at, in their order; the other activations stay unknown.
    """

    def __init__(self, graph: ir.Graph, nodes: Iterable[ir.Node] | None = None) -> None:
        self.opset = graph.opset_imports.get("", 0)
        self._facts: dict[ir.Value, Facts] = {}
        self._linear: dict[ir.Node, Linear | None] = {}
        for node in graph if nodes is None else nodes:
            self.learn(node)

    def learn(self, node: ir.Node) -> None:
        """Find facts about the outputs of a node from those about its inputs."""
        for value, facts in zip(node.outputs, self._outputs(node), strict=True):
            if facts is not None and facts.number.size <= MOST_SLICES:
                self._facts[value] = facts

    def assume(self, value: ir.Value, facts: Facts) -> None:
        """Take facts about a value for granted."""
        self._facts[value] = facts

    def of(self, value: ir.Value) -> Facts:
        """Return what is known about a value of known rank."""
        found = self._facts.get(value)
        if found is None:
            array = constant_of(value)
            usable = array is not None and 0 < array.size <= MOST_SLICES and _numeric(array.dtype)
            if array is not None and usable:
                found = Facts.of_array(array)
            else:
                found = Facts.opaque(len(self.dims(value)), dtype_of(value), digest(value.name))
            self._facts[value] = found
        return found

    def linear(self, node: ir.Node) -> Linear | None:
        """Return how a node sums its data, found once for each node."""
        if node not in self._linear:
            self._linear[node] = linear_of(node)
        return self._linear[node]

    def dims(self, value: ir.Value) -> list[Dim]:
        """Return the dimensions of a value of known rank."""
        dims = dims_of(value)
        assert dims is not None, "nodes with values of unknown rank are opaque"
        return dims

    def _outputs(self, node: ir.Node) -> Sequence[Facts | None]:
        nothing = [None] * len(node.outputs)
        transfer = _transfers().get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if transfer is None:
            return nothing
        if any(v is not None and v.shape is None for v in (*node.inputs, *node.outputs)):
            return nothing
        found = transfer(node, self)
        return [*found, *nothing][: len(nothing)]


def dtype_of(value: ir.Value) -> np.dtype[np.generic]:
    """Return the numpy dtype in which constants of a value are kept."""
    if value.dtype is None or value.dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return np.dtype(np.uint8)
    dtype: np.dtype[np.generic] = np.dtype(value.dtype.numpy())
    return dtype if _numeric(dtype) else np.dtype(np.uint8)


def _numeric(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind in "fiub" or dtype == ir.DataType.BFLOAT16.numpy()


def identity(node: ir.Node, facts: Facts, *more: object) -> tuple[object, ...]:
    """Return what names the function that a node applies to each slice: op, attributes, shape.

    `facts` are about the output: its tracked axes do not belong to the slices. Where the name
    would be incomplete, the node stands for itself.
    """
    parts: list[object] = [node.op_type, *more]
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type not in (*_SIMPLE, *_LISTS):
            return (*parts, node.outputs[0].name)
        value = attribute.value
        parts.append((name, list(value) if attribute.type in _LISTS else value))
    dims = dims_of(node.outputs[0]) or []
    untracked = [(k, d) for k, d in enumerate(dims) if not facts.tracked(k)]
    if any(d is None for _, d in untracked):
        return (*parts, node.outputs[0].name)
    return (*parts, untracked)


def constants(node: ir.Node, start: int = 1) -> tuple[object, ...] | None:
    """Return the numbers of the inputs from `start` on, to name them; None if one is computed."""
    found: list[object] = []
    for value in node.inputs[start:]:
        array: Array | None = constant_of(value)
        if value is not None and array is None:
            return None
        found.append("" if array is None else (str(array.dtype), array.shape, array.tolist()))
    return tuple(found)


@cache
def _transfers() -> dict[str, Transfer]:
    table: dict[str, Transfer] = {}
    for family in _FAMILIES:
        for op, transfer in import_module(f"irprune.facts.{family}").TRANSFERS.items():
            if op in table:
                raise ValueError(f"two transfers for {op}")
            table[op] = transfer
    return table

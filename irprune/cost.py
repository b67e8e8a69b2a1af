"""Parameters, MACs, weight and activation bytes of a graph, each a function of kept lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.channels import Channels
from irprune.ops import rule_for
from irprune.ops.rule import Size
from irprune.passbase import Analysis
from irprune.plan import Mask, Plan, count
from irprune.queries import dims_of

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context


@dataclass(frozen=True)
class Costs:
    """What one inference of a graph takes; dynamic axes count as given, else as 1."""

    params: int
    """Elements of floating-point initializers."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products."""
    weight_bytes: int
    activation_bytes: int
    """Bytes of all activations together."""
    peak_activation_bytes: int
    """Most bytes of activations alive at once, in the order of the graph."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and, at the worst moment, of activations beside them."""
        return self.weight_bytes + self.peak_activation_bytes

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Cost(Analysis["CostModel"]):
    """The cost model of a model; dynamic graph-input axes take the sizes in the context."""

    def compute(self, model: Model, context: Context) -> CostModel:
        return CostModel(model.ir.graph, input_symbols(model.ir.graph, context.shapes))


def input_symbols(graph: ir.Graph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the size of each symbolic dimension that the given graph-input shapes fix."""
    sizes: dict[str, int] = {}
    for value in graph.inputs:
        for dim, size in zip(dims_of(value) or [], shapes.get(value.name or "", ()), strict=False):
            if isinstance(dim, str):
                sizes[dim] = size
    return sizes


class CostModel:
    """Evaluates costs for the whole graph, for a plan, or for a set of kept classes.

    Args:
        graph: the graph, with inferred shapes.
        symbols: sizes of symbolic dimensions; others count as 1.
    """

    def __init__(self, graph: ir.Graph, symbols: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.symbols = dict(symbols or {})
        self._nodes = [(node, rule_for(node)) for node in graph]
        self.busy = [(node, rule) for node, rule in self._nodes if _has_macs(rule)]
        self.weights = [v for v in graph.initializers.values() if v.dtype is not None]
        self.params = [
            v for v in self.weights if v.dtype is not None and v.dtype.is_floating_point()
        ]

    def full(self) -> Costs:
        """Return the costs of the graph as it stands."""
        return self._costs(self.full_size)

    def of_plan(self, plan: Plan) -> Costs:
        """Return the costs of the graph after compaction by a plan."""
        lengths = {
            (name, axis): count(kept)
            for name, masks in plan.axes.items()
            for axis, kept in masks.items()
        }

        def size(value: ir.Value, axis: int) -> int:
            length = lengths.get((value.name or "", axis))
            return self.full_size(value, axis) if length is None else length

        return self._costs(size)

    def measure(self, channels: Channels, what: str) -> Callable[[Mask], int]:
        """Return a fast function from kept classes to ``macs`` or ``params``."""
        _, _, index = channels.unique_axes

        def evaluate(keep: Mask) -> int:
            lengths: npt.NDArray[np.int64] = channels.lengths(keep)
            table = lengths.tolist()

            def size(value: ir.Value, axis: int) -> int:
                number = index.get((value, axis))
                return self.full_size(value, axis) if number is None else table[number]

            return self._macs(size) if what == "macs" else self._count(size)

        return evaluate

    def full_size(self, value: ir.Value, axis: int) -> int:
        """Return the length of an axis as the graph stands."""
        assert value.shape is not None
        dim = value.shape[axis]
        if isinstance(dim, int):
            return dim
        return self.symbols.get(dim.value or "", 1)

    def _macs(self, size: Size) -> int:
        return int(sum(rule.macs(node, size) for node, rule in self.busy))

    def _count(self, size: Size) -> int:
        return sum(elements(value, size) for value in self.params)

    def _costs(self, size: Size) -> Costs:
        activations = sum(elements(v, size) * width_of(v) for v, _, _ in self.lifetimes)
        return Costs(
            params=self._count(size),
            macs=self._macs(size),
            weight_bytes=int(sum(elements(v, size) * width_of(v) for v in self.weights)),
            activation_bytes=int(activations),
            peak_activation_bytes=int(self.alive_bytes(size).max(initial=0)),
        )

    @cached_property
    def lifetimes(self) -> list[tuple[ir.Value, int, int]]:
        """Each activation, and the positions of the nodes that make it and that use it last."""
        last = {
            value: position
            for position, (node, _) in enumerate(self._nodes)
            for value in node.inputs
            if value is not None
        }
        last.update(dict.fromkeys(self.graph.outputs, len(self._nodes)))
        return [
            (value, position, last.get(value, position))
            for position, (node, _) in enumerate(self._nodes)
            for value in node.outputs
            if value.shape is not None
        ]

    def alive_bytes(self, size: Size) -> npt.NDArray[np.float64]:
        """Return the bytes of activations alive while each node runs, shape ``(nodes,)``.

        A value lives from its node to its last consumer.
        """
        change = np.zeros(len(self._nodes) + 2)
        for value, first, last in self.lifetimes:
            count = elements(value, size) * width_of(value)
            change[first] += count
            change[last + 1] -= count
        return np.cumsum(change)[: len(self._nodes)]


def _has_macs(rule: object) -> bool:
    from irprune.ops.rule import Rule

    return type(rule).macs is not Rule.macs  # type: ignore[attr-defined]


def elements(value: ir.Value, size: Size) -> int:
    """Return how many elements a tensor has at given axis lengths."""
    assert value.shape is not None
    return prod(size(value, k) for k in range(len(value.shape)))


def width_of(value: ir.Value) -> float:
    """Bytes of one element."""
    return 0 if value.dtype is None else value.dtype.itemsize

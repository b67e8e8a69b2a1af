"""Parameters, MACs, weight and activation bytes of a graph, each a function of kept lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
from irprune.walk import dims_of

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
        self._busy = [(node, rule) for node, rule in self._nodes if _has_macs(rule)]
        self._weights = [v for v in graph.initializers.values() if v.dtype is not None]
        self._params = [
            v for v in self._weights if v.dtype is not None and v.dtype.is_floating_point()
        ]

    def full(self) -> Costs:
        """Return the costs of the graph as it stands."""
        return self._costs(self._full_size)

    def of_plan(self, plan: Plan) -> Costs:
        """Return the costs of the graph after compaction by a plan."""
        lengths = {
            (name, axis): count(kept)
            for name, masks in plan.axes.items()
            for axis, kept in masks.items()
        }

        def size(value: ir.Value, axis: int) -> int:
            length = lengths.get((value.name or "", axis))
            return self._full_size(value, axis) if length is None else length

        return self._costs(size)

    def measure(self, channels: Channels, what: str) -> Callable[[Mask], int]:
        """Return a fast function from kept classes to ``macs`` or ``params``."""
        _, _, index = channels.unique_axes

        def evaluate(keep: Mask) -> int:
            lengths: npt.NDArray[np.int64] = channels.lengths(keep)
            table = lengths.tolist()

            def size(value: ir.Value, axis: int) -> int:
                number = index.get((value, axis))
                return self._full_size(value, axis) if number is None else table[number]

            return self._macs(size) if what == "macs" else self._count(size)

        return evaluate

    def _full_size(self, value: ir.Value, axis: int) -> int:
        assert value.shape is not None
        dim = value.shape[axis]
        if isinstance(dim, int):
            return dim
        return self.symbols.get(dim.value or "", 1)

    def _macs(self, size: Size) -> int:
        return sum(rule.macs(node, size) for node, rule in self._busy)

    def _count(self, size: Size) -> int:
        return sum(_elements(value, size) for value in self._params)

    def _costs(self, size: Size) -> Costs:
        activations = {
            value: _elements(value, size) * _width(value)
            for node, _ in self._nodes
            for value in node.outputs
            if value.shape is not None
        }
        return Costs(
            params=self._count(size),
            macs=self._macs(size),
            weight_bytes=int(sum(_elements(v, size) * _width(v) for v in self._weights)),
            activation_bytes=int(sum(activations.values())),
            peak_activation_bytes=int(self._peak(activations)),
        )

    def _peak(self, sizes: Mapping[ir.Value, float]) -> float:
        """Return the most bytes alive: a value lives from its node to its last consumer."""
        last: dict[ir.Value, int] = {}
        for position, (node, _) in enumerate(self._nodes):
            for value in node.inputs:
                if value is not None and value in sizes:
                    last[value] = position
        for value in self.graph.outputs:
            last[value] = len(self._nodes)
        dying: dict[int, list[ir.Value]] = {}
        for value, position in last.items():
            dying.setdefault(position, []).append(value)
        alive = peak = 0.0
        for position, (node, _) in enumerate(self._nodes):
            alive += sum(sizes.get(value, 0) for value in node.outputs)
            peak = max(peak, alive)
            alive -= sum(sizes.get(value, 0) for value in dying.get(position, ()))
            alive -= sum(sizes.get(value, 0) for value in node.outputs if value not in last)
        return peak


def _has_macs(rule: object) -> bool:
    from irprune.ops.rule import Rule

    return type(rule).macs is not Rule.macs  # type: ignore[attr-defined]


def _elements(value: ir.Value, size: Size) -> int:
    assert value.shape is not None
    return prod(size(value, k) for k in range(len(value.shape)))


def _width(value: ir.Value) -> float:
    """Bytes of one element."""
    return 0 if value.dtype is None else value.dtype.itemsize

"""Inexact ops in the masked reference: applied to the kept positions alone.

What an op takes statistics over is gathered, with the parameters that run along, and the result
is scattered back to full width, with zeros at the dropped positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.names import Names
from irprune.ops import rule_for
from irprune.ops.rule import Statistic
from irprune.plan import Balanced, Mask, Plan
from irprune.walk import describe

_PADS_INPUT_SINCE = 11

Losing = list[tuple[Statistic, Mask]]
"""Statistics of a node that lose positions, with the kept ones."""


class Gatherer:
    """Inserts gathers around nodes, one per tensor and axis however many nodes read it.

    `constant` makes an initializer from a stem of its name and an array.
    """

    def __init__(
        self,
        graph: ir.Graph,
        plan: Plan,
        names: Names,
        constant: Callable[[str, np.ndarray], ir.Value],
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._opset = graph.opset_imports.get("", 0)
        self._names = names
        self._constant = constant
        self._gathered: dict[tuple[ir.Value, int, bytes], ir.Value] = {}

    def losing(self, node: ir.Node) -> Losing:
        """Return the statistics of a node that lose positions.

        Raises:
            IrpruneError: what runs along with a statistic loses other positions than it does.
        """
        found = ((s, self._kept(node, s)) for s in rule_for(node).statistics(node))
        return [(statistic, kept) for statistic, kept in found if kept is not None]

    def apply(self, node: ir.Node, losing: Losing) -> None:
        """Let a node see the kept positions alone, and scatter what it makes of them."""
        results: dict[int, dict[int, Mask]] = defaultdict(dict)
        for statistic, kept in losing:
            for index, axis in ((statistic.data, statistic.axis), *statistic.along):
                node.replace_input_with(index, self._gather(node, index, axis, kept))
            for index, axis in statistic.results:
                results[index][axis] = kept
        for index, masks in results.items():
            self._scatter(node, index, masks)

    def _kept(self, node: ir.Node, statistic: Statistic) -> Mask | None:
        """Return the kept positions of a statistic's axis, on which all that runs along agrees."""
        data = _input(node, statistic.data)
        kept = self._planned(data, statistic.axis)
        along = [(_input(node, index), axis) for index, axis in statistic.along]
        along += [(node.outputs[index], axis) for index, axis in statistic.results]
        for value, axis in along:
            if not _same(kept, self._planned(value, axis)):
                raise IrpruneError(
                    f"the plan keeps different positions of {data.name} and {value.name}",
                    node=describe(node),
                )
        if kept is not None and np.ptp(kept.reshape(statistic.blocks, -1).sum(axis=1)):
            raise IrpruneError(
                f"the plan keeps more positions of one group of {data.name} than of another",
                node=describe(node),
            )
        return kept

    def _planned(self, value: ir.Value, axis: int) -> Mask | None:
        kept = self._plan.axes.get(value.name or "", {}).get(axis)
        if isinstance(kept, Balanced):
            raise IrpruneError(
                f"the plan keeps different positions per row of {value.name}, over which an op "
                f"takes statistics"
            )
        return kept

    def _gather(self, node: ir.Node, index: int, axis: int, kept: Mask) -> ir.Value:
        value = _input(node, index)
        key = (value, axis, kept.tobytes())
        if key not in self._gathered:
            taken = self._take(value, axis, np.flatnonzero(kept))
            self._graph.insert_before(node, taken)
            self._gathered[key] = taken.outputs[0]
        return self._gathered[key]

    def _scatter(self, node: ir.Node, index: int, masks: dict[int, Mask]) -> None:
        """Put zeros at the dropped positions of an output; the result takes over its name."""
        part = whole = node.outputs[index]
        assert part.shape is not None
        name, shape, readers = part.name, part.shape, list(part.uses())
        part.name, part.shape = self._names.value(f"{name}_kept"), None
        inserted: list[ir.Node] = []
        for axis, kept in masks.items():
            padded = self._pad_front(whole, axis, len(shape))
            taken = self._take(padded.outputs[0], axis, np.where(kept, np.cumsum(kept), 0))
            whole = taken.outputs[0]
            inserted += [padded, taken]
        whole.name, whole.shape = name, shape
        for reader, number in readers:
            reader.replace_input_with(number, whole)
        self._graph.insert_after(node, inserted)

    def _take(self, value: ir.Value, axis: int, indices: np.ndarray) -> ir.Node:
        """Return a node that gathers the positions `indices` of an axis."""
        inputs = [value, self._constant(f"{value.name}_indices", indices.astype(np.int64))]
        return self._node("Gather", inputs, {"axis": axis})

    def _pad_front(self, value: ir.Value, axis: int, rank: int) -> ir.Node:
        """Return a node that puts a zero before the first position of an axis."""
        pads = np.zeros(2 * rank, np.int64)
        pads[axis] = 1
        if self._opset < _PADS_INPUT_SINCE:
            return self._node("Pad", [value], {"pads": pads.tolist()})
        return self._node("Pad", [value, self._constant(f"{value.name}_pads", pads)], {})

    def _node(
        self, kind: str, inputs: list[ir.Value], attributes: dict[str, int | list[int]]
    ) -> ir.Node:
        node = ir.node(kind, inputs, attributes, name=self._names.node(kind.lower()))
        output = node.outputs[0]
        output.name = self._names.value(f"{inputs[0].name}_{kind.lower()}")
        output.type = inputs[0].type
        return node


def _same(left: Mask | None, right: Mask | None) -> bool:
    if left is None or right is None:
        return left is right
    return np.array_equal(left, right)


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None, "a statistic names inputs that are there"
    return value

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
from irprune.plan import Balanced, Kept, Mask, Plan, count
from irprune.queries import describe

_PADS_INPUT_SINCE = 11

Losing = list[tuple[Statistic, Kept]]
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
        self._gathered: dict[tuple[ir.Value, int, tuple[int, ...], bytes], ir.Value] = {}

    def losing(self, node: ir.Node) -> Losing:
        """Return the statistics of a node that lose positions.

        Raises:
            IrpruneError: what runs along with a statistic loses other positions than it does.
        """
        found = ((s, self._kept(node, s)) for s in rule_for(node).statistics(node))
        return [(statistic, kept) for statistic, kept in found if kept is not None]

    def apply(self, node: ir.Node, losing: Losing) -> None:
        """Let a node see the kept positions alone, and scatter what it makes of them."""
        results: dict[int, dict[int, Kept]] = defaultdict(dict)
        ranks = [0 if v is None or v.shape is None else len(v.shape) for v in node.inputs]
        for statistic, kept in losing:
            for index, axis in ((statistic.data, statistic.axis), *statistic.along):
                part = self._gather(node, _input(node, index), ranks[index], axis, kept)
                node.replace_input_with(index, part)
            for index, axis in statistic.results:
                results[index][axis] = kept
        for index, masks in results.items():
            self._scatter(node, index, masks)

    def _kept(self, node: ir.Node, statistic: Statistic) -> Kept | None:
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
        if isinstance(kept, Balanced):
            _check_rows(node, kept, statistic)
        elif kept is not None and np.ptp(kept.reshape(statistic.blocks, -1).sum(axis=1)):
            raise IrpruneError(
                f"the plan keeps more positions of one group of {data.name} than of another",
                node=describe(node),
            )
        return kept

    def _planned(self, value: ir.Value, axis: int) -> Kept | None:
        return self._plan.axes.get(value.name or "", {}).get(axis)

    def _gather(self, node: ir.Node, value: ir.Value, rank: int, axis: int, kept: Kept) -> ir.Value:
        """Return the kept positions of an axis of a value of some rank, for a node to read."""
        per, rows = _parts(kept)
        key = (value, axis, per, rows.tobytes())
        if key not in self._gathered:
            indices = np.argsort(~rows, axis=-1, kind="stable")[..., : count(kept)]
            taken = self._take(value, rank, axis, per, indices)
            for inserted in taken:
                self._graph.insert_before(node, inserted)
            self._gathered[key] = taken[-1].outputs[0]
        return self._gathered[key]

    def _scatter(self, node: ir.Node, index: int, masks: dict[int, Kept]) -> None:
        """Put zeros at the dropped positions of an output; the result takes over its name."""
        part = whole = node.outputs[index]
        assert part.shape is not None
        name, shape, readers = part.name, part.shape, list(part.uses())
        part.name, part.shape = self._names.value(f"{name}_kept"), None
        inserted: list[ir.Node] = []
        for axis, kept in masks.items():
            per, rows = _parts(kept)
            padded = self._pad_front(whole, axis, len(shape))
            indices = np.where(rows, np.cumsum(rows, axis=-1), 0)
            taken = self._take(padded.outputs[0], len(shape), axis, per, indices)
            whole = taken[-1].outputs[0]
            inserted += [padded, *taken]
        whole.name, whole.shape = name, shape
        for reader, number in readers:
            reader.replace_input_with(number, whole)
        self._graph.insert_after(node, inserted)

    def _take(
        self, value: ir.Value, rank: int, axis: int, per: tuple[int, ...], indices: np.ndarray
    ) -> list[ir.Node]:
        """Return nodes that gather positions of an axis.

        `indices` have the shape ``(positions,)``, or ``(*lengths of the axes per, positions)``.
        """
        stem = f"{value.name}_indices"
        if not per:
            inputs = [value, self._constant(stem, indices.astype(np.int64))]
            return [self._node("Gather", inputs, {"axis": axis})]
        front = [*per, axis]
        order = [*front, *(k for k in range(rank) if k not in front)]
        places = np.stack([*np.indices(indices.shape)[:-1], indices], axis=-1).astype(np.int64)
        turned = self._node("Transpose", [value], {"perm": order})
        taken = self._node("GatherND", [turned.outputs[0], self._constant(stem, places)], {})
        back = {"perm": np.argsort(order).tolist()}
        return [turned, taken, self._node("Transpose", [taken.outputs[0]], back)]

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


def _same(left: Kept | None, right: Kept | None) -> bool:
    if left is None or right is None:
        return left is right
    (per, rows), (others, other_rows) = _parts(left), _parts(right)
    return per == others and np.array_equal(rows, other_rows)


def _parts(kept: Kept) -> tuple[tuple[int, ...], Mask]:
    """Return the axes that kept positions differ along, and the mask."""
    return (kept.per, kept.rows) if isinstance(kept, Balanced) else ((), kept)


def _check_rows(node: ir.Node, kept: Balanced, statistic: Statistic) -> None:
    """Refuse rows that share what runs along with them, or that a statistic would mix."""
    reduced = {other.axis for other in rule_for(node).statistics(node)}
    if statistic.along or statistic.blocks > 1 or reduced & {*kept.per}:
        raise IrpruneError(
            "the plan keeps different positions per row of what an op takes one statistic over",
            node=describe(node),
        )


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None, "a statistic names inputs that are there"
    return value

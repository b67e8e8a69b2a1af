"""What rule rewrites use: kept positions, and safe edits of attributes and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.elements import elements_of
from irprune.names import Names
from irprune.plan import Kept, Mask, Plan, first_row
from irprune.queries import constant_of, dims_of


class Edit:
    """A graph under compaction: value shapes are still those of the uncompacted graph.

    Args:
        graph: the graph whose nodes the rules edit in place.
        plan: which positions stay, by tensor name and axis.
    """

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self.graph = graph
        self.opset = graph.opset_imports.get("", 0)
        self._axes: Mapping[str, Mapping[int, Kept]] = plan.axes

    @cached_property
    def _names(self) -> Names:
        return Names(self.graph)

    # What rules read

    def kept(self, value: ir.Value | None, axis: int) -> Mask | None:
        """Return the kept positions of an axis, shape ``(positions,)``; None if all stay.

        Of rows the first answers: up to every position where a rule may cut, all keep equally many.
        """
        if value is None or value.name is None:
            return None
        masks = self._axes.get(value.name)
        if masks is None:
            return None
        kept = masks.get(axis % len(dims_of(value) or [0]))
        return None if kept is None else first_row(kept)

    def touched(self, node: ir.Node) -> bool:
        """Return whether an input or output of the node loses positions."""
        return any(v is not None and v.name in self._axes for v in (*node.inputs, *node.outputs))

    def length(self, value: ir.Value, axis: int) -> int:
        """Return the kept length of an axis of known size."""
        mask = self.kept(value, axis)
        if mask is not None:
            return int(mask.sum())
        size = (dims_of(value) or [])[axis]
        assert isinstance(size, int)
        return size

    def lengths(self, value: ir.Value) -> list[int | None]:
        """Return the kept length of every axis; None where the axis is dynamic."""
        return [
            self.length(value, k) if isinstance(d, int) else None
            for k, d in enumerate(dims_of(value) or [])
        ]

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """Return the numbers of an initializer, or None for anything else."""
        return constant_of(value)

    # What rules write

    def set_attribute(self, node: ir.Node, name: str, value: float | Sequence[int]) -> None:
        """Replace an attribute: an integer, a float, or a list of integers."""
        if isinstance(value, int):
            node.attributes[name] = ir.AttrInt64(name, value)
        elif isinstance(value, float):
            node.attributes[name] = ir.AttrFloat32(name, value)
        else:
            node.attributes[name] = ir.AttrInt64s(name, list(value))

    def set_constant(self, node: ir.Node, index: int, numbers: npt.ArrayLike) -> None:
        """Feed input ``index`` of the node from a constant of its own, of the same dtype.

        Constants may be shared between nodes, so the old one is never edited in place.
        """
        old = node.inputs[index] if index < len(node.inputs) else None
        dtype = np.int64 if old is None or old.dtype is None else old.dtype.numpy()
        array = np.asarray(numbers, dtype=dtype)
        value = self._initializer(f"{node.name}_input{index}", array)
        while len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        node.replace_input_with(index, value)

    def set_shape_input(
        self,
        node: ir.Node,
        index: int,
        lengths: Sequence[int | None],
        keep: Sequence[int] = (),
    ) -> None:
        """Repair a shape-like input: known lengths become constants, dynamic ones stay computed.

        ``lengths`` has one entry per element of the input. Constant elements whose value is in
        ``keep`` have a meaning of their own there (-1, 0) and stay.
        """
        value = node.inputs[index]
        known = elements_of(value) or [None] * len(lengths)
        new = [
            o if o is not None and (n is None or o in keep) else n
            for o, n in zip(known, lengths, strict=True)
        ]
        if new == known:
            return
        if self.constant(value) is not None:
            self.set_constant(node, index, [n for n in new if n is not None])
        elif value is not None:
            self._patch_computed(node, index, value, new)

    def _patch_computed(
        self, node: ir.Node, index: int, value: ir.Value, lengths: Sequence[int | None]
    ) -> None:
        """Concat constants for the known elements with the computed ones for the dynamic."""
        before: list[ir.Node] = []
        parts = self._patched(node, value, lengths, before)
        if len(parts) > 1:
            name = self._names.node(f"{node.name}_shape")
            concat = ir.node("Concat", parts, {"axis": 0}, name=name)
            self._name_output(concat, f"{node.name}_shape", value.dtype, [len(lengths)])
            before.append(concat)
            parts = list(concat.outputs)
        self.graph.insert_before(node, before)
        node.replace_input_with(index, parts[0])

    def _patched(
        self,
        node: ir.Node,
        value: ir.Value,
        lengths: Sequence[int | None],
        made: list[ir.Node],
    ) -> list[ir.Value]:
        """Return consecutive parts of a vector with its known elements replaced."""
        if all(n is None for n in lengths):
            return [value]
        if all(n is not None for n in lengths):
            dtype = np.dtype(np.int64) if value.dtype is None else value.dtype.numpy()
            return [self._initializer(f"{node.name}_lengths", np.asarray(lengths, dtype))]
        ends = self._concatenated(value)
        if ends is not None:
            return [
                patched
                for part, start, stop in ends
                for patched in self._patched(node, part, lengths[start:stop], made)
            ]
        parts: list[ir.Value] = []
        for computed, run in groupby(enumerate(lengths), lambda item: item[1] is None):
            where = [k for k, _ in run]
            if not computed:
                numbers = lengths[where[0] : where[-1] + 1]
                parts += self._patched(node, value, numbers, made)
                continue
            positions = self._initializer(f"{node.name}_axes", np.asarray(where, np.int64))
            name = self._names.node(f"{node.name}_dims")
            gather = ir.node("Gather", [value, positions], {"axis": 0}, name=name)
            self._name_output(gather, f"{node.name}_dims", value.dtype, [len(where)])
            made.append(gather)
            parts.append(gather.outputs[0])
        return parts

    @staticmethod
    def _concatenated(value: ir.Value) -> list[tuple[ir.Value, int, int]] | None:
        """Return the parts of a concatenated vector and where each starts and stops."""
        node = value.producer()
        if node is None or node.op_type != "Concat" or node.domain:
            return None
        found, start = [], 0
        for part in node.inputs:
            dims = None if part is None else dims_of(part)
            if part is None or dims is None or len(dims) != 1 or not isinstance(dims[0], int):
                return None
            found.append((part, start, start + dims[0]))
            start += dims[0]
        return found

    def _name_output(
        self, node: ir.Node, stem: str, dtype: ir.DataType | None, shape: Sequence[int]
    ) -> None:
        output = node.outputs[0]
        output.name = self._names.value(stem)
        output.dtype = dtype or ir.DataType.INT64
        output.shape = ir.Shape(shape)

    def _initializer(self, stem: str, array: np.ndarray) -> ir.Value:
        name = self._names.value(stem)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array, name=name),
        )
        self.graph.register_initializer(value)
        return value

"""What rule rewrites use: kept positions, and safe edits of attributes and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.names import Names
from irprune.plan import Plan
from irprune.walk import constant_of, dims_of

Mask = npt.NDArray[np.bool_]


class Edit:
    """A graph under compaction: value shapes are still those of the uncompacted graph.

    Args:
        graph: the graph whose nodes the rules edit in place.
        plan: which positions stay, by tensor name and axis.
    """

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self.graph = graph
        self.opset = graph.opset_imports.get("", 0)
        self._axes: Mapping[str, Mapping[int, Mask]] = plan.axes

    @cached_property
    def _names(self) -> Names:
        return Names(self.graph)

    # What rules read

    def kept(self, value: ir.Value | None, axis: int) -> Mask | None:
        """Return the kept positions of an axis, shape ``(positions,)``; None if all stay."""
        if value is None or value.name is None:
            return None
        masks = self._axes.get(value.name)
        if masks is None:
            return None
        return masks.get(axis % len(dims_of(value) or [0]))

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

        ``lengths`` has one entry per element of the input. Elements of a constant shape whose
        value is in ``keep`` have a meaning of their own there (-1, 0) and stay.
        """
        value = node.inputs[index]
        old = self.constant(value)
        if old is not None:
            new = [
                int(o) if o in keep or n is None else n
                for o, n in zip(old.tolist(), lengths, strict=True)
            ]
            if new != old.tolist():
                self.set_constant(node, index, new)
            return
        assert value is not None
        self._patch_computed(node, index, value, lengths)

    def _patch_computed(
        self, node: ir.Node, index: int, value: ir.Value, lengths: Sequence[int | None]
    ) -> None:
        """Concat constants for the known elements with the computed ones for the dynamic."""
        parts: list[ir.Value] = []
        before: list[ir.Node] = []
        for k, length in enumerate(lengths):
            if length is not None:
                array = np.asarray([length], dtype=np.int64)
                parts.append(self._initializer(f"{node.name}_length{k}", array))
                continue
            position = self._initializer(f"{node.name}_axis{k}", np.asarray([k], dtype=np.int64))
            gather = ir.node("Gather", [value, position], {"axis": 0}, name=f"{node.name}_dim{k}")
            self._name_output(gather, f"{node.name}_dim{k}", [1])
            before.append(gather)
            parts.append(gather.outputs[0])
        concat = ir.node("Concat", parts, {"axis": 0}, name=f"{node.name}_shape")
        self._name_output(concat, f"{node.name}_shape", [len(parts)])
        self.graph.insert_before(node, [*before, concat])
        node.replace_input_with(index, concat.outputs[0])

    def _name_output(self, node: ir.Node, stem: str, shape: Sequence[int]) -> None:
        output = node.outputs[0]
        output.name = self._names.value(stem)
        output.dtype = ir.DataType.INT64
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

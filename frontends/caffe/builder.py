"""An ONNX graph that grows node by node, with the shape of every value known at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.errors import IrpruneError

OPSET = 17
IR_VERSION = 8

Attribute = Any
"""What a node's attribute may be: a number, a text, or several numbers."""

_SMALL = 1024
"""Constants of up to this many entries are shown to shape inference with their numbers."""


class Builder:
    """Nodes in execution order, initializers and graph inputs; names are unique."""

    def __init__(self) -> None:
        self.inputs: list[ir.Value] = []
        self.initializers: dict[str, ir.Value] = {}
        self.nodes: list[ir.Node] = []
        self._types: dict[ir.Value, onnx.TypeProto] = {}
        self._names: set[str] = set()
        self._count = 0

    def input(self, name: str, shape: Sequence[int]) -> ir.Value:
        """A new graph input of floats."""
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        self._types[value] = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, shape)
        self.inputs.append(value)
        return value

    def initializer(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """A new initializer."""
        tensor = ir.Tensor(np.asarray(array, order="C"), name=self.unique(name))
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self._types[value] = onnx.helper.make_tensor_type_proto(int(tensor.dtype), array.shape)
        self.initializers[tensor.name or ""] = value
        return value

    def drop(self, value: ir.Value) -> None:
        """Forget an initializer that nothing uses any more."""
        del self.initializers[value.name or ""]

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute],
        name: str,
        outputs: int = 1,
    ) -> tuple[ir.Value, ...]:
        """Append a node; its outputs get provisional names.

        Raises:
            IrpruneError: the op does not fit the shapes of its inputs.
        """
        made = []
        for _ in range(outputs):
            self._count += 1
            made.append(ir.Value(name=f"#{self._count}"))
        node = ir.node(op, inputs, attributes, outputs=made, name=self.unique(name))
        for value, inferred in zip(made, self._inferred(node), strict=True):
            self._types[value] = inferred
            value.type = ir.serde.deserialize_type_proto_for_type(inferred)
            value.shape = ir.serde.deserialize_type_proto_for_shape(inferred)
        self.nodes.append(node)
        return tuple(made)

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`, ...: the name of a new node or initializer."""
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found

    def _inferred(self, node: ir.Node) -> list[onnx.TypeProto]:
        known = {v.name or "": v for v in node.inputs if v is not None}
        try:
            found = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, OPSET, ""),
                ir.serde.serialize_node(node),
                {name: self._types[value] for name, value in known.items()},
                {
                    name: ir.serde.serialize_tensor(value.const_value)
                    for name, value in known.items()
                    if value.const_value is not None and value.const_value.size <= _SMALL
                },
                opset_imports=[onnx.helper.make_opsetid("", OPSET)],
                ir_version=IR_VERSION,
            )
            types = [found[value.name or ""] for value in node.outputs]
        except (onnx.shape_inference.InferenceError, KeyError) as error:
            raise IrpruneError(f"the shapes do not fit: {error}") from error
        for one in types:
            dims = one.tensor_type.shape.dim
            if any(not dim.HasField("dim_value") or dim.dim_value < 1 for dim in dims):
                raise IrpruneError("the input is too small: an output would be empty")
        return types

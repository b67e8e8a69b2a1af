"""The structure of a graph as a hash: what must agree for a plan to fit another checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

_STRUCTURAL = (ir.DataType.INT64, ir.DataType.BOOL)


def structure_hash(model: ir.Model) -> str:
    """The SHA-256 of ops, attributes, names and shapes, in hexadecimal.

    The numbers of floating-point and quantised tensors do not count; those of `int64` and `bool`
    tensors do, since they are shapes, axes, indices and conditions.
    """
    digest = hashlib.sha256()
    for fact in (sorted(model.opset_imports.items()), *_graph(model.graph)):
        digest.update(f"{fact!r}\n".encode())
    return digest.hexdigest()


def weights_hash(model: ir.Model) -> str:
    """The SHA-256 of all numbers that a graph holds, by name, in hexadecimal."""
    digest = hashlib.sha256()
    for graph in model.graphs():
        for name, value in sorted(graph.initializers.items()):
            if value.const_value is not None:
                digest.update(f"{name}\n".encode())
                digest.update(value.const_value.tobytes())
        for node in graph:
            for name, attribute in sorted(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR:
                    digest.update(f"{node.name} {name}\n".encode())
                    digest.update(attribute.as_tensor().tobytes())
    return digest.hexdigest()


def _graph(graph: ir.Graph) -> Iterator[tuple[Any, ...]]:
    for value in graph.inputs:
        yield ("input", *_value(value))
    for name, value in sorted(graph.initializers.items()):
        yield ("initializer", name, _tensor(value.const_value))
    for node in graph:
        inputs = [None if value is None else value.name for value in node.inputs]
        outputs = [_value(value) for value in node.outputs]
        yield ("node", node.domain, node.op_type, node.name, inputs, outputs)
        for name, attribute in sorted(node.attributes.items()):
            yield ("attribute", name, attribute.type.name, *_attribute(attribute))
    for value in graph.outputs:
        yield ("output", *_value(value))


def _value(value: ir.Value) -> tuple[Any, ...]:
    dtype = None if value.dtype is None else value.dtype.name
    dims = None
    if value.shape is not None:
        dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return value.name, dtype, dims


def _tensor(tensor: ir.TensorProtocol | None) -> tuple[Any, ...]:
    if tensor is None:
        return ()
    numbers = hashlib.sha256(tensor.tobytes()).hexdigest() if tensor.dtype in _STRUCTURAL else ""
    return tensor.dtype.name, list(tensor.shape), numbers


def _attribute(attribute: ir.Attr) -> Iterator[Any]:
    if attribute.type == ir.AttributeType.TENSOR:
        yield _tensor(attribute.as_tensor())
    elif attribute.type == ir.AttributeType.TENSORS:
        yield from map(_tensor, attribute.as_tensors())
    elif attribute.type == ir.AttributeType.GRAPH:
        yield from _graph(attribute.as_graph())
    elif attribute.type == ir.AttributeType.GRAPHS:
        for graph in attribute.as_graphs():
            yield from _graph(graph)
    elif attribute.type == ir.AttributeType.FLOAT:
        yield str(_single(attribute.value))
    elif attribute.type == ir.AttributeType.FLOATS:
        yield str(tuple(_single(number) for number in attribute.value))
    else:
        yield str(attribute.value)


def _single(number: float) -> float:
    """Return a number as a file keeps it: in memory it may be more precise."""
    return float(np.float32(number))

"""A model as text: one line per tensor and node, the same for the same model on every run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

_SHOWN = 8


def print_model(model: ir.Model) -> str:
    """Return the graph as text: inputs, initializers, nodes, outputs, in graph order."""
    return "\n".join(_lines(model)) + "\n"


def _lines(model: ir.Model) -> Iterator[str]:
    opsets = " ".join(f"{d or 'onnx'}={v}" for d, v in sorted(model.opset_imports.items()))
    yield f"model {model.graph.name or '-'} ir={model.ir_version} {opsets}"
    yield from _graph(model.graph, "")


def _graph(graph: ir.Graph, indent: str) -> Iterator[str]:
    for value in graph.inputs:
        yield f"{indent}input  %{value.name} : {_type(value)}"
    for value in graph.initializers.values():
        yield f"{indent}weight %{value.name} : {_type(value)}{_numbers(value)}"
    for node in graph:
        yield f"{indent}{_node(node)}"
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield f"{indent}  {attribute.name}:"
                yield from _graph(attribute.as_graph(), indent + "    ")
    for value in graph.outputs:
        yield f"{indent}output %{value.name} : {_type(value)}"


def _node(node: ir.Node) -> str:
    outputs = ", ".join(f"%{v.name}" if v.name else "_" for v in node.outputs)
    inputs = ", ".join("_" if v is None else f"%{v.name}" for v in node.inputs)
    attributes = " ".join(
        f"{name}={_attribute(a)}"
        for name, a in sorted(node.attributes.items())
        if a.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    )
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    types = ", ".join(_type(v) for v in node.outputs)
    braces = f" {{{attributes}}}" if attributes else ""
    return f"{outputs} = {op}({inputs}){braces} : {types}  # {node.name}"


def _type(value: ir.Value) -> str:
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    if value.shape is None:
        return f"{dtype}[?]"
    dims = [str(d) if isinstance(d, int) else (d.value or "?") for d in value.shape.dims]
    return f"{dtype}[{','.join(dims)}]"


def _numbers(value: ir.Value) -> str:
    """Small constants are shown whole; of weights only the type matters."""
    tensor = value.const_value
    if tensor is None or tensor.size > _SHOWN:
        return ""
    array = tensor.numpy()
    return f" = {np.array2string(array, separator=',', max_line_width=10**6)}".replace("\n", "")


def _attribute(attribute: ir.Attr) -> str:
    value = attribute.value
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(str, value)) + "]"
    if isinstance(value, str | int | float):
        return str(value)
    return f"<{attribute.type.name.lower()}>"

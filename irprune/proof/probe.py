"""Graphs made ready to be compared: float32 throughout, activations exposed as graph outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.ops import bodies
from irprune.proof.activations import inputs_of, node_outputs

HALF = frozenset((ir.DataType.FLOAT16, ir.DataType.BFLOAT16))
_TYPE_ATTRIBUTES = ("to", "dtype")
_IR_VERSIONS = (4, 10)
"""Versions of the files: from the first one in which an initializer is a constant unless it is
listed as a graph input, to one that every runtime of the day reads."""


def has_half(model: ir.Model) -> bool:
    """Return whether the main graph holds float16 or bfloat16 tensors."""
    graph = model.graph
    values = (*graph.inputs, *graph.initializers.values(), *node_outputs(graph))
    return any(value.dtype in HALF for value in values)


def promote(model: ir.Model) -> None:
    """Compute in float32 what the model computes in float16 or bfloat16, in place.

    Widening is exact, so a graph and its compaction stay what they are to each other.
    """
    for graph in model.graphs():
        values = {*graph.inputs, *graph.initializers.values()}
        for node in graph:
            values.update(node.outputs)
            for name, attribute in list(node.attributes.items()):
                widened = _widen_attribute(name, attribute)
                if widened is not None:
                    node.attributes[name] = widened
        for value in values:
            if value.dtype in HALF:
                value.type = ir.TensorType(ir.DataType.FLOAT)  # types are shared with the original
                if value.const_value is not None:
                    value.const_value = _widen(value.const_value)


def _widen(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(np.asarray(tensor.numpy(), np.float32), name=tensor.name)


def _widen_attribute(name: str, attribute: ir.Attr) -> ir.Attr | None:
    """Return the attribute for float32, None where it says nothing about half precision."""
    if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in HALF:
        return ir.AttrTensor(name, _widen(attribute.as_tensor()))
    if name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
        return ir.AttrInt64(name, ir.DataType.FLOAT) if attribute.as_int() in HALF else None
    return None


def write_probe(model: ir.Model, path: Path, exposed: Iterable[str]) -> None:
    """Write a model file whose activations `exposed` are graph outputs as well; changes `model`.

    Stated shapes of activations are dropped: the runtime finds out for itself.
    """
    graph = model.graph
    produced = {value.name: value for value in node_outputs(graph)}
    outputs = {value.name for value in graph.outputs}
    for value in produced.values():
        if not value.is_graph_output():
            value.shape = None
    graph.outputs.extend(produced[name] for name in exposed if name not in outputs)
    _save(model, path)


def write_shapes(model: ir.Model, path: Path, names: Sequence[str]) -> None:
    """Write a model file with the shapes of activations, named by `shape_name`, as outputs too.

    Changes `model`.
    """
    graph = model.graph
    produced = {value.name: value for value in node_outputs(graph)}
    for name in names:
        node = ir.node("Shape", [produced[name]])
        node.outputs[0].name = shape_name(name)
        node.outputs[0].dtype = ir.DataType.INT64
        graph.append(node)
    write_probe(model, path, [shape_name(name) for name in names])


def shape_name(name: str) -> str:
    """Return the name of an activation's shape in a file of shapes."""
    return f"irprune_shape/{name}"


def write_steps(
    model: ir.Model,
    path: Path,
    names: Sequence[str],
    cut: Collection[str],
    overridable: Sequence[str] = (),
) -> None:
    """Write a model file that computes the node outputs `names`, the activations `cut` given.

    Each activation in `cut` becomes a graph input, which its readers read instead; the node
    outputs `names` become the graph outputs under the names that `step_name` gives, and what they
    do not need is left out. The initializers `overridable` become inputs with a default, so that
    a run can replace them. Changes `model`.
    """
    graph = model.graph
    produced = {value.name or "": value for value in node_outputs(graph)}
    graph.outputs.clear()
    for name in sorted({*cut, *names}):
        value = produced[name]
        value.name = step_name(name)
        if name in cut:
            given = ir.Value(name=name, type=value.type, shape=value.shape)
            value.replace_all_uses_with(given)
            graph.inputs.append(given)
    graph.outputs.extend(produced[name] for name in names)
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            for inner in (n for body in bodies(node) for n in body.all_nodes()):
                inner.resize_inputs(0)  # else what it reads would seem to be needed
            graph.remove(node, safe=True)
    for value in list(graph.initializers.values()):
        if not value.uses():
            graph.initializers.pop(value.name or "")
    graph.inputs.extend(graph.initializers[name] for name in overridable)
    _save(model, path)


def step_name(name: str) -> str:
    """Return the name of a computed activation where the plain name is the given one."""
    return f"irprune_step/{name}"


def sources(values: Iterable[ir.Value], known: Collection[str]) -> set[str]:
    """Return the activations in `known` that node outputs are computed from."""
    found: set[str] = set()
    seen: set[ir.Node] = set()
    stack = [value.producer() for value in values]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for value in inputs_of(node):
            if value.name in known and value.producer() is not None:
                found.add(value.name or "")
            else:
                stack.append(value.producer())
    return found


def reached(value: ir.Value, known: Collection[str]) -> list[str]:
    """Return the first activations in `known` on every path from a value to the outputs."""
    found: dict[str, None] = {}
    seen, stack = {value}, [value]
    while stack:
        for node, _ in stack.pop().uses():
            for output in node.outputs:
                if output.name in known:
                    found[output.name or ""] = None
                elif output not in seen:
                    seen.add(output)
                    stack.append(output)
    return list(found)


def _save(model: ir.Model, path: Path) -> None:
    oldest, newest = _IR_VERSIONS
    model.ir_version = min(max(model.ir_version or oldest, oldest), newest)
    ir.save(model, path, external_data=f"{path.name}.data")


def widened(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the feeds for a promoted model."""
    half = {dtype.numpy() for dtype in HALF}
    return {
        name: array.astype(np.float32) if array.dtype in half else array
        for name, array in feeds.items()
    }

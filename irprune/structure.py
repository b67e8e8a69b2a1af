"""The structural verifier: schema, shapes and names of a graph after each transform."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.model import check_graph
from irprune.shapes import inferred
from irprune.walk import dims_of

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context


def check(model: Model, context: Context) -> None:
    """Raise IrpruneError unless the graph is well-formed.

    Every input of a node exists and no cycle joins them; onnx's checker accepts the nodes;
    shapes inferred anew from inputs and weights agree with the shapes that the graph states;
    every plan names tensors of its graph.
    """
    check_graph(model.ir.graph, model.provenance.path)
    _unique_names(model.ir.graph)
    proto = inferred(model.ir)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise IrpruneError(f"onnx.checker rejects the graph: {reason}") from error
    _shapes_agree(model.ir.graph, proto)


def structure_hash(model: ir.Model) -> str:
    """Return a hash of ops, attributes, names and shapes, not of weights.

    Two checkpoints of one architecture have the same hash; constants that shape the graph
    (integers) count, floating-point weights only by dtype and shape.
    """
    digest = hashlib.sha256()
    graph = model.graph
    for value in graph.initializers.values():
        digest.update(f"{value.name}:{value.dtype}:{dims_of(value)}\n".encode())
        tensor = value.const_value
        if tensor is not None and not tensor.dtype.is_floating_point():
            digest.update(tensor.tobytes())
    for value in (*graph.inputs, *graph.outputs):
        digest.update(f"{value.name}:{value.dtype}:{dims_of(value)}\n".encode())
    for node in graph:
        attributes = sorted((k, str(a.value)) for k, a in node.attributes.items())
        inputs = [v.name if v is not None else "" for v in node.inputs]
        outputs = [v.name for v in node.outputs]
        line = f"{node.domain}.{node.op_type} {node.name} {inputs} {outputs} {attributes}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def _unique_names(graph: ir.Graph) -> None:
    seen: set[str] = set()
    for value in (*graph.inputs, *graph.initializers.values(), *_outputs(graph)):
        if not value.name:
            continue
        if value.name in seen:
            raise IrpruneError(f"two tensors are named {value.name}")
        seen.add(value.name)


def _outputs(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]


def _shapes_agree(graph: ir.Graph, proto: onnx.ModelProto) -> None:
    infos = {info.name: info.type for info in (*proto.graph.value_info, *proto.graph.output)}
    for value in _outputs(graph):
        info, dims = infos.get(value.name or ""), dims_of(value)
        if info is None or dims is None or not info.tensor_type.HasField("shape"):
            continue
        new = [d.dim_value if d.HasField("dim_value") else None for d in info.tensor_type.shape.dim]
        clash = len(new) != len(dims) or any(
            isinstance(d, int) and n is not None and d != n for d, n in zip(dims, new, strict=True)
        )
        if clash:
            node = value.producer()
            raise IrpruneError(
                f"{value.name} is stated as {dims} but inferred as {new}",
                node=None if node is None else f"{node.name} ({node.op_type})",
            )

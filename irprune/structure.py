"""The structural verifier: schema, shapes and names of a graph after each transform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.model import check_graph
from irprune.proof.reference import check_plan
from irprune.queries import dims_of
from irprune.shapes import inferred

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context


def check(model: Model, context: Context) -> None:
    """Raise IrpruneError unless the graph is well-formed.

    Every input of a node exists and no cycle joins them; onnx's checker accepts the nodes;
    shapes inferred anew from inputs and weights agree with the shapes that the graph states;
    every plan names tensors of its graph and their lengths.
    """
    check_graph(model.ir.graph, model.provenance.path)
    _unique_names(model.ir.graph)
    proto = inferred(model.ir)
    for output in list(proto.graph.output):  # the checker asks for shapes that nobody may know
        if not output.type.tensor_type.HasField("shape"):
            proto.graph.output.remove(output)
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise IrpruneError(f"onnx.checker rejects the graph: {reason}") from error
    _shapes_agree(model.ir.graph, proto)
    if model.pending is not None:
        check_plan(model.ir, model.pending)
    if model.base is not None and model.plan is not None:
        check_plan(model.base, model.plan)


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

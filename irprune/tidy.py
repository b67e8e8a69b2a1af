"""Small edits of a graph that several passes share."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from irprune.names import graphs_of

_OMITTED = ""


def is_used(node: ir.Node) -> bool:
    """Return whether an output of the node is read or is an output of its graph."""
    return any(v.is_graph_output() or v.uses() for v in node.outputs)


def only_use(value: ir.Value) -> bool:
    """Return whether one node input reads the value and nothing else does."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def single_output(node: ir.Node) -> bool:
    """Return whether the node has one output; omitted ones do not count."""
    return all(v.name == _OMITTED for v in node.outputs[1:])


def take_over(value: ir.Value, former: ir.Value) -> None:
    """Let `value` stand where `former` stood: its uses, and its place as a graph output.

    A graph output keeps its name, type and shape, so `value` must then come from a node of the
    same graph and be no graph output itself.
    """
    if former.is_graph_output():
        value.name, former.name = former.name, None
        value.type, value.shape = former.type, former.shape
    former.replace_all_uses_with(value, replace_graph_outputs=True)


def bypass(node: ir.Node) -> bool:
    """Remove a node that hands its first input on, where the names of graph outputs allow it."""
    source, output, graph = node.inputs[0], node.outputs[0], node.graph
    assert source is not None and isinstance(graph, ir.Graph)
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
    take_over(source, output)
    graph.remove(node, safe=True)
    return True


def bypass_copies(graph: ir.Graph) -> int:
    """Remove Identity and inference-time Dropout from a graph and its bodies; return how many."""
    copies = [node for part in graphs_of(graph) for node in part if _is_copy(node)]
    return sum(map(bypass, copies))


def _is_copy(node: ir.Node) -> bool:
    if node.domain or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(v.is_graph_output() or v.uses() for v in node.outputs[1:]):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None:
        return True
    constant = training.const_value if training.is_initializer() else None
    return constant is not None and not constant.numpy().any()


def add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol | np.ndarray) -> ir.Value:
    """Add an initializer under an unused name; return its value."""
    if isinstance(tensor, np.ndarray):
        tensor = ir.tensor(tensor, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(list(tensor.shape.numpy())),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def remove_dead(model: ir.Model) -> int:
    """Remove nodes and initializers that reach no graph output; return how many."""
    before = len(model.graph) + len(model.graph.initializers)
    RemoveUnusedNodesPass()(model)
    return before - len(model.graph) - len(model.graph.initializers)

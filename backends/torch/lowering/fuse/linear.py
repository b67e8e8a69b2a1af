"""Linear layers written as Transpose, MatMul and Add."""

from __future__ import annotations

import onnx_ir as ir

from irprune.backends.torch.lowering.fuse.common import inner, maker, replace
from irprune.queries import dims_of


def fuse_linear(graph: ir.Graph) -> None:
    """Fuse MatMul (or Gemm) with the Transpose of its weight and the Add of its bias."""
    for node in list(graph):
        if node.domain or node.graph is None:
            continue
        if node.op_type == "Gemm":
            _gemm(node)
        elif node.op_type == "MatMul":
            _matmul(node)


def _turned(value: ir.Value | None) -> ir.Value | None:
    """Return the weight ``(out, in)`` of which a value is the transpose."""
    node = maker(value, "Transpose")
    if node is None or node.inputs[0] is None or not node.inputs[0].is_initializer():
        return None
    weight = node.inputs[0]
    perm = node.attributes.get("perm")
    plain = perm is None or list(perm.as_ints()) == [1, 0]
    return weight if plain and len(dims_of(weight) or []) == 2 else None


def _gemm(node: ir.Node) -> None:
    weight = _turned(node.inputs[1])
    if weight is None:
        return
    attributes = {name: held.value for name, held in node.attributes.items()}
    attributes["transB"] = 1 - int(attributes.get("transB", 0))
    replace(node, "Linear", [node.inputs[0], weight, *node.inputs[2:]], attributes, node.name)


def _matmul(node: ir.Node) -> None:
    value = node.inputs[1]
    weight = _turned(value)
    rows = int(weight is not None)
    if weight is None and value is not None and value.is_initializer():
        weight = value
    if weight is None or len(dims_of(weight) or []) != 2:
        return
    outer = (dims_of(weight) or [])[1 - rows]
    last, bias = node, None
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) == 1 and readers[0].op_type == "Add" and not readers[0].domain:
        add = readers[0]
        other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
        alone = inner(node.outputs[0], "MatMul") is node
        if alone and other is not None and other.is_initializer() and dims_of(other) == [outer]:
            last, bias = add, other
    inputs = [node.inputs[0], weight] if bias is None else [node.inputs[0], weight, bias]
    replace(last, "Linear", inputs, {"transB": rows}, node.name)

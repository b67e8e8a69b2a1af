"""Constants of a graph: lifted to initializers, evaluated, and given to each user its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.names import Names, graphs_of
from irprune.roles import PARAMETER
from irprune.tidy import add_initializer

Array = npt.NDArray[np.generic]

_SHAPE_LIKE = (ir.DataType.INT64, ir.DataType.INT32)
_MOST_SHAPE_LIKE = 1 << 10

_EVALUATED = """
    Abs Add And ArgMax ArgMin Cast Ceil Clip Concat ConstantOfShape CumSum Div Equal Erf Exp
    Expand EyeLike Flatten Floor Gather GatherElements GatherND Greater GreaterOrEqual Less
    LessOrEqual Log Max Mean Min Mod Mul Neg NonZero Not OneHot Or Pad Pow Range Reciprocal
    ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape Round
    ScatterElements ScatterND Sigmoid Sign Sin Cos Slice Split Sqrt Squeeze Sub Sum Tanh Tile TopK
    Transpose Trilu Unsqueeze Where Xor
"""
EVALUATED = frozenset(_EVALUATED.split())
"""Ops that `evaluate` is asked for: those of shape arithmetic and of small float constants."""

GROWING = frozenset(["ConstantOfShape", "EyeLike", "Expand", "OneHot", "Pad", "Range", "Tile"])
"""Ops whose output can be far larger than their inputs."""


def lift(graph: ir.Graph) -> int:
    """Turn Constant nodes into initializers named after their outputs; return how many.

    A Constant that is itself a graph output stays. Raises IrpruneError for a sparse one.
    """
    count = 0
    for part in graphs_of(graph):
        for node in part:
            if node.op_type != "Constant" or node.domain or node.outputs[0].is_graph_output():
                continue
            output, tensor = node.outputs[0], _tensor(node)
            part.remove(node)
            output.replace_all_uses_with(add_initializer(part, output.name or "", tensor))
            count += 1
    return count


def _tensor(node: ir.Node) -> ir.TensorProtocol:
    """Return the tensor of a Constant node, whichever attribute holds it."""
    (attribute,) = node.attributes.values()
    name = node.outputs[0].name
    match attribute.name:
        case "value":
            return attribute.as_tensor()
        case "value_int" | "value_ints":
            return ir.tensor(attribute.value, dtype=ir.DataType.INT64, name=name)
        case "value_float" | "value_floats":
            return ir.tensor(attribute.value, dtype=ir.DataType.FLOAT, name=name)
        case "value_string":
            return ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape([]), name=name)
        case "value_strings":
            texts = [text.encode() for text in attribute.as_strings()]
            return ir.StringTensor(texts, shape=ir.Shape([len(texts)]), name=name)
    raise IrpruneError(
        f"its attribute {attribute.name} is not supported",
        node=f"{node.name} (Constant)",
        mend="store the tensor densely and export again",
    )


def evaluate(node: ir.Node, inputs: Mapping[str, Array], opsets: Mapping[str, int]) -> list[Array]:
    """Compute the outputs of a node from arrays, with the reference implementation of onnx.

    Raises whatever the reference implementation raises, for what it does not cover.
    """
    from onnx.reference import ReferenceEvaluator

    proto = ir.serde.serialize_node(node)
    outputs = [name for name in proto.output if name]
    graph = onnx.GraphProto(
        name="constant",
        node=[proto],
        input=[onnx.ValueInfoProto(name=name) for name in inputs],
        output=[onnx.ValueInfoProto(name=name) for name in outputs],
    )
    results = ReferenceEvaluator(graph, opsets=dict(opsets)).run(None, dict(inputs))
    return [np.asarray(result) for result in results]


def unshare(graph: ir.Graph, names: Names) -> int:
    """Give each use of a shared constant its own copy; return how many copies were made.

    Covers one-dimensional and integer initializers and those whose elements are all equal: what
    optimisers merge although it belongs to unrelated layers. Larger ones stay tied, and so do named
    parameters of a source. The first use keeps the name, unless the initializer is a graph output.
    """
    copies = 0
    for value in list(graph.initializers.values()):
        uses = list(value.uses())
        spare = uses if value.is_graph_output() else uses[1:]
        tensor = value.const_value
        if not spare or tensor is None or PARAMETER in value.metadata_props:
            continue
        if not _separable(tensor):
            continue
        for use in spare:
            name = names.value(f"{value.name}_{use.node.name}")
            copy = add_initializer(graph, name, tensor)
            copy.metadata_props.update(value.metadata_props)
            use.node.replace_input_with(use.idx, copy)
        copies += len(spare)
    return copies


def _separable(tensor: ir.TensorProtocol) -> bool:
    rank = len(tensor.shape)
    if rank <= 1 or not tensor.size:
        return rank == 1
    if tensor.dtype in _SHAPE_LIKE and tensor.size <= _MOST_SHAPE_LIKE:
        return True
    array = tensor.numpy()
    return bool((array == array.flat[0]).all())

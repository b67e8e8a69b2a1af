"""Strict shape inference: stale shapes are cleared first, conflicts are errors."""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir

from irprune.errors import IrpruneError

_SMALL = 1024
"""Initializers up to this many bytes travel with their numbers: shape arithmetic needs them."""

_SILENT = ("GroupNormalization",)
"""Ops for which onnx infers nothing, not even a type; their output is like their first input."""


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """Return the model as a protobuf in which large weights are bare graph inputs."""
    graph = model.graph
    weights = [
        v
        for v in graph.initializers.values()
        if v.const_value is not None and v.const_value.nbytes > _SMALL
    ]
    inputs = list(graph.inputs)
    for value in weights:
        graph.initializers.pop(value.name or "")
    graph.inputs.extend(weights)
    # Small numbers may lie in a file of their own; onnx would look for it elsewhere.
    outside = {
        v: t
        for v in graph.initializers.values()
        if isinstance(t := v.const_value, ir.ExternalTensor)
    }
    for value, tensor in outside.items():
        value.const_value = ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name)
    try:
        proto = ir.serde.serialize_model(model)
        # Before IR 4 every weight must be a graph input too; `Model.save` sees to that.
        proto.ir_version = max(proto.ir_version, 4)
        return proto
    finally:
        for value, tensor in outside.items():
            value.const_value = tensor
        graph.inputs.clear()
        graph.inputs.extend(inputs)
        for value in weights:
            graph.register_initializer(value)


def inferred(model: ir.Model) -> onnx.ModelProto:
    """Return the skeleton with shapes inferred from graph inputs and weights alone.

    Raises:
        IrpruneError: the shapes contradict each other; names the node that onnx blames.
    """
    proto = skeleton(model)
    del proto.graph.value_info[:]
    silent = _set_aside(proto.graph)
    _name_dims(proto)
    try:
        result = onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=True, data_prop=True
        )
    except onnx.shape_inference.InferenceError as error:
        raise IrpruneError(
            f"shape inference failed: {_reason(str(error))}",
            node=_blamed(str(error)),
            mend="the model's shapes disagree; check it with onnx.checker",
        ) from error
    for k, node in silent.items():
        result.graph.node[k].CopyFrom(node)
    return result


def _set_aside(graph: onnx.GraphProto) -> dict[int, onnx.NodeProto]:
    """Put an Identity in the place of each silent node; return these nodes by their places."""
    silent: dict[int, onnx.NodeProto] = {}
    for k, node in enumerate(graph.node):
        if node.op_type in _SILENT and node.domain in ("", "ai.onnx"):
            silent[k] = onnx.NodeProto()
            silent[k].CopyFrom(node)
            same = onnx.helper.make_node("Identity", node.input[:1], node.output[:1], node.name)
            node.CopyFrom(same)
    return silent


def unnamed(value: str, axis: int) -> str:
    """Return how inference names an axis of a graph input that has neither length nor name."""
    return f"{value}[{axis}]"


def _name_dims(proto: onnx.ModelProto) -> None:
    """Name the unnamed dimensions of graph inputs, so that they are followed like others."""
    infos = (*proto.graph.input, *proto.graph.output)
    declared = {dim.dim_param for info in infos for dim in info.type.tensor_type.shape.dim}
    for info in proto.graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") is None:
                dim.dim_param = unnamed(info.name, axis)
                if dim.dim_param in declared:
                    raise IrpruneError(
                        f"a dimension is named {dim.dim_param}, like the unnamed axis {axis} of "
                        f"input {info.name}",
                        mend="give the axes of the graph inputs other names",
                    )


def infer(model: ir.Model) -> None:
    """Give every value of the main graph its inferred type and shape, in place.

    Shapes that onnx cannot infer become unknown. Graph outputs keep the dimensions that they
    state; one without a shape gets the inferred one. Raises IrpruneError on a conflict.
    """
    proto = inferred(model)
    infos = {info.name: info.type for info in proto.graph.value_info}
    outputs = {info.name: info.type for info in proto.graph.output}
    declared = set(model.graph.outputs)
    for node in model.graph:
        for value in node.outputs:
            info = infos.get(value.name or "")
            if info is not None:
                value.type = ir.serde.deserialize_type_proto_for_type(info)
                value.shape = ir.serde.deserialize_type_proto_for_shape(info)
            elif value not in declared:
                value.shape = None
            elif value.shape is None:
                value.shape = anonymous(
                    ir.serde.deserialize_type_proto_for_shape(outputs[value.name or ""])
                )


def anonymous(shape: ir.Shape | None) -> ir.Shape | None:
    """Return a shape without the names of its dynamic axes: a graph output states none of ours."""
    if shape is None:
        return None
    return ir.Shape([dim if isinstance(dim, int) else None for dim in shape.dims])


def _reason(text: str) -> str:
    """Return what onnx says of the node that it blames first; the other lines follow from it."""
    first = text.strip().partition("\n")[0]
    return re.sub(r"^.*\(op_type:[^)]*\): |\[\w+\] ?", "", first)


def _blamed(text: str) -> str | None:
    found = re.search(r"op_type:\s*(\w+),\s*node name:\s*([^)\s]*)", text)
    return f"{found[2]} ({found[1]})" if found else None

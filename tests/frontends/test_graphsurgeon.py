"""graphsurgeon graphs go in and come back unchanged, with their constants shared."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir as ir
import pytest

from irprune import IrpruneError, api, from_graphsurgeon, to_graphsurgeon
from irprune.model import Model

TEXT = """
<ir_version: 10, opset_import: ["" : 20, "com.example" : 3]>
net (float[batch, 8, H, 8] x, int64[2] k) => (float[batch, 16, M, N] y, int64[2] z)
{
    [scale] scaled = com.example.Scale <alpha = 0.5, tags = ["a", "b"], axes = [0, 2]> (x, s)
    [conv] c = Conv <group = 2, pads = [1, 1, 1, 1], auto_pad = "NOTSET"> (scaled, w, b)
    [clip] d = Clip (c, , )
    y = Relu (d)
    [double] z = Add (k, k)
}
"""


def example() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in {"w": (16, 4, 3, 3), "b": (16,), "s": (8,)}.items():
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def facts(model: ir.Model) -> dict[str, object]:
    """Everything of a model that graphsurgeon has a place for."""
    graph = model.graph
    return {
        "inputs": [(v.name, v.dtype, str(v.shape)) for v in graph.inputs],
        "outputs": [(v.name, v.dtype, str(v.shape)) for v in graph.outputs],
        "opsets": dict(model.opset_imports),
        "nodes": [
            (
                node.name,
                node.domain,
                node.op_type,
                [None if v is None else v.name for v in node.inputs],
                [v.name for v in node.outputs],
                {name: (a.type, a.value) for name, a in node.attributes.items()},
            )
            for node in graph
        ],
        "weights": {
            name: (v.const_value.dtype, v.const_value.numpy().tolist())
            for name, v in graph.initializers.items()
            if v.const_value is not None
        },
    }


def test_a_model_survives_the_round_trip() -> None:
    model = Model.from_proto(example())
    back = from_graphsurgeon(to_graphsurgeon(model))
    assert facts(back.ir) == facts(model.ir)


def test_a_graph_survives_the_round_trip() -> None:
    graph = gs.import_onnx(example())
    before = gs.export_onnx(graph)
    after = gs.export_onnx(to_graphsurgeon(from_graphsurgeon(graph)))
    assert facts(ir.serde.deserialize_model(after)) == facts(ir.serde.deserialize_model(before))
    assert facts(from_graphsurgeon(graph).ir) == facts(Model.from_proto(before).ir)


def test_bfloat16_survives_the_round_trip() -> None:
    proto = example()
    (weight,) = [t for t in proto.graph.initializer if t.name == "w"]
    array = ir.Tensor(onnx.numpy_helper.to_array(weight).astype(ir.DataType.BFLOAT16.numpy()))
    extra = ir.serde.serialize_tensor(array)
    extra.name = "half"
    proto.graph.initializer.append(extra)
    proto.graph.node.append(
        onnx.helper.make_node("Cast", ["half"], ["whole"], name="cast", to=onnx.TensorProto.FLOAT)
    )
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("whole", onnx.TensorProto.FLOAT, [16, 4, 3, 3])
    )
    model = Model.from_proto(proto)
    assert facts(from_graphsurgeon(to_graphsurgeon(model)).ir) == facts(model.ir)


def test_large_constants_are_shared() -> None:
    model = Model.from_proto(example())
    weight = model.ir.graph.initializers["w"]
    array = np.ones((16, 4, 3, 3), np.float32)
    weight.const_value = ir.Tensor(array, name="w")
    graph = to_graphsurgeon(model)
    assert np.shares_memory(graph.tensors()["w"].values, array)
    shared = from_graphsurgeon(graph).ir.graph.initializers["w"].const_value
    assert shared is not None and np.shares_memory(shared.numpy(), array)


def test_a_pruned_graph_goes_back() -> None:
    graph = gs.Graph(opset=20, name="two")
    x = gs.Variable("x", np.float32, ["N", 3, 8, 8])
    weights = [np.random.default_rng(0).normal(size=s).astype(np.float32) for s in SHAPES]
    y = graph_layer(graph, x, weights[0])
    z = graph_layer(graph, y, weights[1])
    z.dtype, z.shape = np.float32, ["N", 4, 4, 4]
    graph.inputs, graph.outputs = [x], [z]
    result = api.run("normalize, prune{ratio=0.5}, compact", from_graphsurgeon(graph))
    back = to_graphsurgeon(result.model)
    assert [node.op for node in back.nodes] == ["Conv", "Conv"]
    assert [tuple(node.inputs[1].shape) for node in back.nodes] == [(8, 3, 3, 3), (4, 8, 3, 3)]
    assert back.inputs[0].shape == ["N", 3, 8, 8]
    assert [tuple(node.inputs[1].shape) for node in graph.nodes] == list(SHAPES)


SHAPES = ((16, 3, 3, 3), (4, 16, 3, 3))


def graph_layer(graph: gs.Graph, x: gs.Variable, weight: np.ndarray) -> gs.Variable:
    y = gs.Variable(f"conv{len(graph.nodes)}")
    constant = gs.Constant(f"w{len(graph.nodes)}", weight)
    graph.nodes.append(gs.Node("Conv", y.name, inputs=[x, constant], outputs=[y]))
    return y


def test_an_input_without_dtype_is_refused() -> None:
    x, y = gs.Variable("x"), gs.Variable("y", np.float32, [1])
    graph = gs.Graph([gs.Node("Relu", inputs=[x], outputs=[y])], [x], [y])
    with pytest.raises(IrpruneError, match="graphsurgeon cannot write the graph"):
        from_graphsurgeon(graph)

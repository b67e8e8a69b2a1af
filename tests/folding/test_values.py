"""Shape arithmetic: random graphs of integer ops against onnxruntime, and single rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from irprune import structure
from irprune.folding.learning import settled_target
from irprune.folding.values import Length, partial_of, partial_outputs
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize

BINARY = ["Add", "Sub", "Mul", "Min", "Max"]
STEPS = """
gather slice concat binary divide where reduce scalar cast neg reverse matrix
"""
SMALL = st.integers(-3, 5)


class Arithmetic:
    """Draws a graph that computes integer vectors from the shape of an input (N, 4, H, 6)."""

    def __init__(self, data: st.DataObject, opset: int) -> None:
        self.data = data
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.vectors: list[tuple[str, int]] = []
        self.node("Relu", ["x"], out="r")
        self.vector("Shape", ["r"], 4)

    def node(self, op: str, inputs: list[str], out: str = "", **attributes: Any) -> str:
        out = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def vector(self, op: str, inputs: list[str], length: int, **attributes: Any) -> None:
        self.vectors.append((self.node(op, inputs, **attributes), length))

    def constant(self, numbers: list[int] | int) -> str:
        name = f"c{len(self.constants)}"
        array = np.array(numbers, np.int64)
        self.constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def step(self) -> None:
        draw = self.data.draw
        name, length = draw(st.sampled_from(self.vectors))
        other, other_length = draw(st.sampled_from(self.vectors))
        match draw(st.sampled_from(STEPS.split())):
            case "gather":
                picked = draw(st.lists(st.integers(-length, length - 1), min_size=1, max_size=3))
                self.vector("Gather", [name, self.constant(picked)], len(picked))
            case "slice":
                start, stop = sorted((draw(st.integers(0, length - 1)), draw(st.integers(1, 9))))
                if start < min(stop, length):
                    bounds = [self.constant([start]), self.constant([stop])]
                    self.vector("Slice", [name, *bounds], min(stop, length) - start)
            case "concat" if length + other_length <= 8:
                self.vector("Concat", [name, other], length + other_length, axis=0)
            case "binary":
                if other_length not in (1, length):
                    other = self.constant(draw(st.lists(SMALL, min_size=length, max_size=length)))
                self.vector(draw(st.sampled_from(BINARY)), [name, other], length)
            case "divide":
                divisor = self.constant(draw(st.sampled_from([1, 2, 3, 5])))
                self.vector(draw(st.sampled_from(["Div", "Mod"])), [name, divisor], length)
            case "where":
                probe = self.constant(draw(st.sampled_from([-1, 1, 4])))
                condition = self.node("Equal", [name, probe])
                if other_length not in (1, length):
                    other = probe
                self.vector("Where", [condition, other, name], length)
            case "reduce":
                op = draw(st.sampled_from(["ReduceProd", "ReduceSum"]))
                axes: dict[str, Any] = {"keepdims": 1}
                inputs = [name]
                if op == "ReduceSum" and self.opset >= 13:
                    inputs.append(self.constant([0]))
                else:
                    axes["axes"] = [0]
                self.vector(op, inputs, 1, **axes)
            case "scalar":
                picked = draw(st.integers(0, length - 1))
                scalar = self.node("Gather", [name, self.constant(picked)])
                if self.opset >= 13:
                    self.vector("Unsqueeze", [scalar, self.constant([0])], 1)
                else:
                    self.vector("Unsqueeze", [scalar], 1, axes=[0])
            case "cast":
                narrow = self.node("Cast", [name], to=TensorProto.INT32)
                self.vector("Cast", [narrow], length, to=TensorProto.INT64)
            case "neg":
                self.vector("Neg", [name], length)
            case "reverse":
                ends = [self.constant([n]) for n in (-1, -(2**63) + 1, 0, -1)]
                self.vector("Slice", [name, *ends], length)
            case "matrix" if length % 2 == 0:
                square = self.node("Reshape", [name, self.constant([-1, 2])])
                turned = self.node("Transpose", [square], perm=[1, 0])
                self.vector("Reshape", [turned, self.constant([-1])], length)

    def model(self) -> onnx.ModelProto:
        outputs = []
        for index, (name, length) in enumerate(self.vectors):
            self.node("Cast", [name], out=f"y{index}", to=TensorProto.DOUBLE)
            outputs.append(helper.make_tensor_value_info(f"y{index}", TensorProto.DOUBLE, [length]))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, "H", 6])
        graph = helper.make_graph(self.nodes, "g", [x], outputs, self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )


def run(proto: onnx.ModelProto, shape: tuple[int, ...]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results: list[np.ndarray] = session.run(None, {"x": np.ones(shape, np.float32)})
    return results


@pytest.mark.parametrize("opset", [12, 17])
@given(data=st.data())
def test_random_arithmetic_stays_what_it_was(opset: int, data: st.DataObject) -> None:
    arithmetic = Arithmetic(data, opset)
    for _ in range(data.draw(st.integers(3, 12))):
        arithmetic.step()
    proto = arithmetic.model()
    model = Model.from_proto(proto)
    Normalize().run(model, Context())
    structure.check(model, Context())
    for node in model.ir.graph:
        for index, value in enumerate(node.inputs):
            if value is not None and value.producer() is not None:
                above = value.producer()
                assert above is not None
                # Only dynamic axes are read: of four, the first and the third.
                if above.op_type == "Shape":
                    assert node.op_type == "Gather" and index == 0
                    assert node.inputs[1] is not None and node.inputs[1].const_value is not None
                    assert set(node.inputs[1].const_value.numpy().ravel().tolist()) <= {0, 2}
    again = model.clone()
    assert Normalize().run(again, Context()) == {}
    after = ir.serde.serialize_model(model.ir)
    for shape in [(2, 4, 3, 6), (1, 4, 7, 6)]:
        for expected, got in zip(run(proto, shape), run(after, shape), strict=True):
            np.testing.assert_array_equal(got, expected)


def lengths() -> tuple[Length, Length]:
    value = ir.Value(name="x", shape=ir.Shape(["N", 4, "H"]))
    return Length("N", value, 0), Length("H", value, 2)


def outputs_of(op: str, *inputs: Any, **attributes: Any) -> list[list[Any]] | None:
    """Return the flat outputs of an op for flat inputs, each a list or a scalar."""
    values = [ir.Value(name=f"i{k}", type=ir.TensorType(ir.DataType.INT64)) for k in range(9)]
    known = {
        value: partial_of(given if isinstance(given, list) else [given],
                          [len(given)] if isinstance(given, list) else [])
        for value, given in zip(values, inputs, strict=False)
    }  # fmt: skip
    node = ir.node(op, values[: len(inputs)], attributes)
    found = partial_outputs(node, known.get)
    return None if found is None else [part.ravel().tolist() for part in found]


def test_lengths_obey_the_laws_of_numbers() -> None:
    n, h = lengths()
    same = Length("N", ir.Value(name="other"), 0)
    assert outputs_of("Add", [n, 0, n], [0, n, 1]) == [[n, n, None]]
    assert outputs_of("Sub", [n, n, h], [0, same, n]) == [[n, 0, None]]
    assert outputs_of("Mul", [n, 1, n, n], [1, n, 0, 2]) == [[n, n, 0, None]]
    assert outputs_of("Div", [n, n, -7, 7], [1, 2, 2, -2]) == [[n, None, -3, -3]]
    assert outputs_of("Mod", [n, -7], [2, 3]) == [[None, 2]]
    assert outputs_of("Min", [n, n], [same, 4]) == [[n, None]]
    assert outputs_of("Max", [n, n, 0], [same, 4, n]) == [[n, None, n]]
    assert outputs_of("Equal", [n, n, n, 3], [-1, same, 4, 3]) == [[False, True, None, True]]
    assert outputs_of("Where", [True, False, None], [n, n, n], [h, h, n]) == [[n, h, n]]
    assert outputs_of("ReduceProd", [1, n, 1]) == [[n]]
    assert outputs_of("ReduceProd", [2, n], keepdims=0) == [[None]]


def test_movement_carries_lengths() -> None:
    n, h = lengths()
    assert outputs_of("Gather", [n, 4, h], [2, 0]) == [[h, n]]
    assert outputs_of("Gather", [n, 4, h], -1) == [[h]]
    assert outputs_of("Gather", [n, 4, h], 3) is None
    assert outputs_of("Slice", [n, 4, h], [-1], [-9], [0], [-2]) == [[h, n]]
    assert outputs_of("Concat", [n], [4, h], axis=0) == [[n, 4, h]]
    assert outputs_of("Expand", [n], [3]) == [[n, n, n]]
    assert outputs_of("Expand", [n], [1 << 40]) is None
    assert outputs_of("Reshape", [n, 4, h, 1], [2, -1]) == [[n, 4, h, 1]]
    assert outputs_of("Reshape", [n, 4], [h]) is None
    assert outputs_of("Shape", [n, 4]) is None


@pytest.mark.parametrize(
    ("dims", "asked", "allowzero", "target"),
    [
        (["N", 4, 2], ["N", 8], False, [0, 8]),
        (["N", 4, 2], [8, "N"], False, [8, -1]),
        (["N", 4, 2], ["M", 8], False, [0, 8]),
        (["N", 4, 2], [-1, 8], False, [0, 8]),
        (["N", 4, 2], [-1, 4], False, [-1, 4]),
        (["N", 4, 2], [8, -1], False, [8, -1]),
        (["N", "H"], [-1, "H"], False, [0, 0]),
        (["N", "H"], ["H", "N"], False, None),
        (["N", "H"], ["H", -1], False, None),
        (["N", 2, 2, "T", 8], ["N", -1, "T", 8], False, [0, 4, -1, 8]),
        (["N", 2, 2, "T", 8], ["N", -1, "T", 3], False, None),
        (["N", 2, 2, "T", 8], ["N", -1, "M", 8], False, None),
        (["N", 4], ["N", 0], True, None),
        (["N", 4], [0, 4], False, [0, 4]),
        ([2, 4], [-1, 4], False, [-1, 4]),
        ([], ["N", 4], False, [-1, 4]),
    ],
)
def test_targets_of_reshape(
    dims: list[Any], asked: list[Any], allowzero: bool, target: list[int] | None
) -> None:
    def element(dim: Any) -> Any:
        return Length(dim, ir.Value(name="x"), 0) if isinstance(dim, str) else dim

    found = settled_target(list(map(element, dims)), list(map(element, asked)), allowzero)
    assert found == target

"""Output shapes that follow from shape inputs known in part."""

from __future__ import annotations

import pytest
from onnx import parser

from irprune import shapes
from irprune.errors import IrpruneError
from irprune.folding.dims import FOLLOWED
from irprune.folding.learning import Knowledge
from irprune.folding.values import dim_elements
from irprune.model import Model
from irprune.queries import Dim, dims_of

START = """<ir_version: 8, opset_import: ["": OPSET]>
g (float[N, 6, H, 5] x, int64[8] r, float[2] f) => (float z)
    <int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i3 = {3},
     int64[1] six = {6}, int64[1] m = {-1}, int64[1] last = {2147483647}, int64[1] far = {-99},
     int64[4] nothing = {0, 0, 0, 0}, int64[3] three = {1, 2, 1}, float[0] empty = {},
     float[2] ones = {1, 1}, int64[2] channels_rows = {1, 2}> {
    s = Shape(x)
    n = Gather(s, i0)
    h = Gather(s, i2)
    row = Gather(r, i0)
"""


def _learnt(body: str, opset: int = 17) -> list[Dim] | None:
    """The dimensions of c after one walk over the graph."""
    text = (
        START.replace("OPSET", str(opset)) + body + " e = Relu(c) z = ReduceMax<keepdims = 0>(e) }"
    )
    model = Model.from_proto(parser.parse_model(text))
    shapes.infer(model.ir)
    Knowledge(model.ir, frozenset())
    (node,) = [node for node in model.ir.graph if node.outputs[0].name == "e"]
    assert node.inputs[0] is not None
    return dims_of(node.inputs[0])


@pytest.mark.parametrize(
    ("body", "dims"),
    [
        ("t = Concat<axis = 0>(row, i1) c = Expand(x, t)", ["N", 6, None, 5]),
        ("t = Concat<axis = 0>(n, six, row) c = ConstantOfShape(t)", ["N", 6, None]),
        ("t = Concat<axis = 0>(n, i3, i2, row) c = Reshape(x, t)", ["N", 3, 2, None]),
        ("t = Concat<axis = 0>(n, six, m, row) c = Reshape(x, t)", ["N", 6, None, None]),
        ("t = Concat<axis = 0>(n, i1, row, i1) c = Expand(x, t)", ["N", 6, None, 5]),
        ("a = ReduceMax(x) t = Concat<axis = 0>(n, six, h, row) c = Expand(a, t)",
         ["N", 6, "H", None]),
        ("t = Concat<axis = 0>(n, six, h, row) c = Resize(x, empty, empty, t)",
         ["N", 6, "H", None]),
        ("t = Concat<axis = 0>(ones, f) c = Resize(x, empty, t)", ["N", 6, None, None]),
        ("c = Slice(x, i0, n, i0)", ["N", 6, "H", 5]),
        ("c = Slice(x, i0, h, i0)", [None, 6, "H", 5]),
        ("t = Concat<axis = 0>(i1, i2, i1, row) c = Tile(x, t)", ["N", 12, "H", None]),
        ("t = Concat<axis = 0>(nothing, i0, i1, row, i0) c = Pad(x, t)", ["N", 7, None, 5]),
        ("t = Concat<axis = 0>(i0, i1, row, i0, nothing) c = Pad(x, t)", ["N", 7, None, 5]),
        ("a = Concat<axis = 0>(i0, row) b = Concat<axis = 0>(i3, last)"
         " c = Slice(x, a, b, channels_rows)", ["N", 3, None, 5]),
        ("a = Concat<axis = 0>(m, i0) b = Concat<axis = 0>(far, row) d = Concat<axis = 0>(m, i1)"
         " c = Slice(x, a, b, channels_rows, d)", ["N", 6, None, 5]),
        ("a = Concat<axis = 0>(i0, i0) b = Concat<axis = 0>(row, last)"
         " c = Slice(x, a, b, channels_rows)", ["N", None, "H", 5]),
    ],
)  # fmt: skip
def test_what_is_known_of_a_shape_input_shows_in_the_output(body: str, dims: list[Dim]) -> None:
    found = _learnt(body)
    assert found is not None
    named = [d if d in ("N", "H") or isinstance(d, int) else None for d in found]
    assert named == dims


def test_the_first_two_axes_stay_where_upsample_scales_the_others() -> None:
    body = "t = Concat<axis = 0>(ones, f) c = Upsample(x, t)"
    found = _learnt(body, opset=9)
    assert found is not None
    assert found[:2] == ["N", 6]
    assert not any(isinstance(d, int) or d == "H" for d in found[2:])


@pytest.mark.parametrize(
    "body",
    [
        "c = Pad(x, r)",
        "t = Concat<axis = 0>(ones, f) q = Cast<to = 1>(r) "
        'c = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(x, q, t)',
        "t = Gather(r, channels_rows) c = Slice(x, i0, i1, row)",
        "t = Gather(r, nothing) c = Tile(x, t)",
        "t = Gather(r, nothing) c = Expand(x, t)",
    ],
)
def test_nothing_is_invented(body: str) -> None:
    found = _learnt(body)
    assert found is None or not any(
        isinstance(d, int) and (k, d) not in ((1, 6), (3, 5)) for k, d in enumerate(found)
    )
    assert found is None or "Expand" in body or not any(isinstance(d, int) for d in found)


def test_a_wrong_shape_is_refused() -> None:
    """The parts of the target contradict the data: onnx says so when all is known."""
    with pytest.raises(IrpruneError, match="shape inference failed"):
        _learnt("a = ReduceMax<axes = [0, 2]>(x) b = Shape(a) i = Gather(b, i1) j = Add(i, i1)"
                " t = Concat<axis = 0>(i1, j, i1, m) c = Reshape(a, t)")  # fmt: skip


def test_every_followed_op_has_a_case() -> None:
    cases = {"ConstantOfShape", "Expand", "Pad", "Reshape", "Resize", "Slice", "Tile", "Upsample"}
    assert cases == FOLLOWED


def test_unnamed_axes_of_inputs_are_told_apart() -> None:
    """An element-wise op keeps the axis of its input, and Shape reads the same; not another's."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[?, ?] x, float[?, 2] o) => (float[?, ?] y, float[?, 2] z, int64[2] s) {
        a = Neg(x)
        y = Neg(a)
        c = Neg(o)
        z = Neg(c)
        s = Shape(x)
    }"""
    model = Model.from_proto(parser.parse_model(text))
    shapes.infer(model.ir)
    values = {v.name: v for node in model.ir.graph for v in node.outputs}
    assert [dims_of(values[name]) for name in ("a", "c")] == [["x[0]", "x[1]"], ["o[0]", 2]]
    (first, second) = dim_elements(model.ir.graph.inputs[0])
    assert first == dim_elements(values["a"])[0] != second
    assert first != dim_elements(values["c"])[0]
    assert [dims_of(v) for v in model.ir.graph.inputs] == [[None, None], [None, 2]]
    assert dims_of(values["z"]) == [None, 2]


def test_a_name_that_inference_would_give_is_refused() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[?] x, float[N] o) => (float[N] z) '
        "{ z = Add(x, o) }"
    )
    proto.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "x[0]"
    with pytest.raises(IrpruneError, match=r"a dimension is named x\[0\], like the unnamed axis 0"):
        shapes.infer(Model.from_proto(proto).ir)

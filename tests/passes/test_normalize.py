"""Normalisation: every behaviour on a small graph, the same outputs before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from irprune import structure
from irprune.errors import IrpruneError
from irprune.model import Model, load
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.plan import Plan

Parse = Callable[..., Model]
Same = Callable[..., None]


def normalize(model: Model, log: Callable[[str], None] = print) -> Model:
    """Return the model normalised; the given one is left alone."""
    after = model.clone()
    context = Context(log=log)
    Normalize().run(after, context)
    structure.check(after, context)
    return after


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def weights(model: Model) -> dict[str, np.ndarray]:
    found = model.ir.graph.initializers
    return {n: v.const_value.numpy() for n, v in found.items() if v.const_value is not None}


# Constants and copies


def test_constants_become_initializers_of_their_name(parse: Parse, same: Same) -> None:
    model = parse("""g (float[2] x) => (float[2] y, int64[2] z, float[1] u) {
        a = Constant<value = float[2] {1, 2}>()
        b = Constant<value_float = 3.0>()
        c = Constant<value_floats = [4.0, 5.0]>()
        d = Constant<value_int = 1>()
        e = Constant<value_ints = [6, 7]>()
        s = Constant<value_strings = ["eins", "öko"]>()
        t = Constant<value_string = "öko">()
        f = Constant<value = float[2] {9, 9}>()
        same = Equal(s, t)
        found = Cast<to = 1>(same)
        ax = Add(x, a)
        bx = Mul(ax, b)
        cx = Add(bx, c)
        y = Add(cx, found)
        z0 = NonZero(x)
        z1 = Shape(z0)
        z2 = Add(z1, d)
        z = Add(z2, e)
        u = ReduceSum<keepdims = 1>(x)
    }""", opset=19)  # fmt: skip
    after = normalize(model)
    same(model, after)
    assert "Constant" not in ops(after)
    found = weights(after)
    assert found["a"].tolist() == [1, 2] and found["b"] == 3 and found["c"].tolist() == [4, 5]
    assert found["d"] == 1 and found["d"].dtype == np.int64 and found["e"].tolist() == [6, 7]
    assert found["s"].tolist() == [b"eins", "öko".encode()] and found["t"] == "öko".encode()
    assert "f" not in found


def test_a_sparse_constant_is_refused(parse: Parse) -> None:
    model = parse("g (float[2] x) => (float[2] y) { c = Constant<value_int = 1>() y = Relu(x) }")
    (constant, _) = model.ir.graph
    tensor = ir.tensor([1.0])
    constant.attributes.clear()
    constant.attributes["sparse_value"] = ir.Attr(
        "sparse_value", ir.AttributeType.SPARSE_TENSOR, tensor
    )
    with pytest.raises(IrpruneError, match=r"\(Constant\): its attribute sparse_value"):
        Normalize().run(model, Context())


def test_a_constant_output_stays(parse: Parse, same: Same) -> None:
    model = parse("""g (float[2] x) => (float[2] y, float[2] z) {
        z = Constant<value = float[2] {1, 2}>()
        y = Relu(x)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Constant", "Relu"]


def test_identity_goes_and_names_stay(parse: Parse, same: Same) -> None:
    model = parse("""g (float[2] x) => (float[2] y, float[2] copy, float[2] z)
        <float[2] w = {3, 4}> {
        x1 = Identity(x)
        x2 = Identity(x1)
        w1 = Identity(w)
        a = Add(x2, w1)
        y = Identity(a)
        copy = Identity(x)
        z = Identity(y)
    }""")
    after = normalize(model)
    same(model, after)
    # `copy` hands an input to an output, and `z` an output to another: both need a node.
    assert ops(after) == ["Add", "Identity", "Identity"]
    assert [v.name for v in next(iter(after.ir.graph)).inputs if v] == ["x", "w"]
    assert next(iter(after.ir.graph)).outputs[0].name == "y"


def test_identity_of_an_outer_value_in_a_branch_stays(parse: Parse, same: Same) -> None:
    model = parse("""g (float[2] x, bool c) => (float[2] y) {
        a = Relu(x)
        b = Identity(a)
        y = If (c) <
            then_branch = t () => (float[2] t1) { t1 = Identity(b) },
            else_branch = e () => (float[2] e1) { e0 = Identity(b) e1 = Neg(e0) }
        >
    }""")
    after = normalize(model)
    for condition in (True, False):
        feeds = {"x": np.array([-1, 2], np.float32), "c": np.array(condition)}
        same(model, after, feeds=feeds)
    bodies = {g.name: [n.op_type for n in g] for g in after.ir.graph.subgraphs()}
    assert bodies == {"t": ["Identity"], "e": ["Neg"]}


@pytest.mark.parametrize(
    ("dropout", "opset", "goes"),
    [
        ("d = Dropout(a)", 17, True),
        ("d = Dropout<ratio = 0.3>(a)", 11, True),
        ("d, mask = Dropout(a)", 17, True),
        ("off = Constant<value = bool {0}>() d = Dropout(a, , off)", 17, True),
        ("on = Constant<value = bool {1}>() d = Dropout(a, , on)", 17, False),
        ("d, mask = Dropout(a) m = Cast<to = 1>(mask)", 17, False),
    ],
)
def test_inference_time_dropout_goes(parse: Parse, dropout: str, opset: int, goes: bool) -> None:
    used = "d, m" if "m =" in dropout else "d, d"
    model = parse(
        f"g (float[2] x) => (float[2] y) {{ a = Relu(x) {dropout} y = Add({used}) }}", opset
    )
    after = normalize(model)
    assert ("Dropout" not in ops(after)) == goes


def test_functions_are_inlined(same: Same) -> None:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[N, 4] x) => (float[N, 4] y) <float[4] w = {1, 2, 3, 4}> {
            a = local.shifted<by = 0.5>(x, w)
            y = local.shifted<by = 2.0>(a, w)
        }
        <domain: "local", opset_import: ["": 17, "local": 1]>
        shifted <by>(x, w) => (z) { c = Constant<value_float: float = @by>()
            m = Mul(x, w) d, mask = Dropout(m) z = local.plus(d, c) }
        <domain: "local", opset_import: ["": 17]>
        plus (x, y) => (z) { z = Add(x, y) }
    """)
    model = Model.from_proto(proto)
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Mul", "Add", "Mul", "Add"]
    assert not after.ir.functions
    assert [v.name for v in after.ir.graph.outputs] == ["y"]


def test_a_function_of_another_opset_is_refused() -> None:
    proto = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2] x) => (float[2] y) { y = local.f(x) }
        <domain: "local", opset_import: ["": 13]>
        f (x) => (z) { z = Relu(x) }
    """)
    with pytest.raises(IrpruneError, match="cannot be inlined"):
        Normalize().run(Model.from_proto(proto), Context())


# Names and sharing


def test_names_become_unique_and_good_ones_stay(parse: Parse) -> None:
    model = parse("g (float[2] x) => (float[2] y) { a = Relu(x) b = Neg(a) c = Abs(b) y = Exp(c) }")
    relu, neg, absolute, _ = model.ir.graph
    relu.name, neg.name, absolute.name = "Exp_3", "twice", "twice"
    neg.outputs[0].name = ""
    after = normalize(model)
    assert [n.name for n in after.ir.graph] == ["Exp_3", "twice", "twice_2", "Exp_3_2"]
    names = [n.outputs[0].name for n in after.ir.graph]
    assert names == ["a", "twice_output0", "c", "y"]
    again = normalize(model)
    assert [n.name for n in again.ir.graph] == [n.name for n in after.ir.graph]


def test_omitted_outputs_stay_omitted(parse: Parse, same: Same) -> None:
    model = parse("""g (float[3, 1, 2] x) => (float[1, 1, 2] y)
        <float[1, 8, 2] w = {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}, float[1, 8, 2] r =
        {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}> { , y = LSTM<hidden_size = 2>(x, w, r) }""")
    after = normalize(model)
    same(model, after)
    assert [v.name for v in next(iter(after.ir.graph)).outputs] == ["", "y"]


def test_look_alike_constants_are_unshared(parse: Parse, same: Same) -> None:
    model = parse("""g (float[1, 2] x) => (float[1, 2] y) <
        float[2] bias = {1, 2}, float[2, 2] zero = {0, 0, 0, 0}, float[2, 2] tied = {1, 2, 3, 4},
        float one = {1}> {
        [n1] a = Add(x, bias)
        [n2] b = Mul(a, bias)
        [n3] c = MatMul(b, zero)
        [n4] d = MatMul(c, zero)
        [n5] e = MatMul(d, tied)
        [n6] f = MatMul(e, tied)
        [n7] h = Add(f, one)
        [n8] i = Add(h, one)
        [n9] y = Clip(i, one, one)
    }""")
    after = normalize(model)
    same(model, after)
    assert set(weights(after)) == {"bias", "bias_n2", "zero", "zero_n4", "tied", "one"}
    uses = {v.name: len(v.uses()) for v in after.ir.graph.initializers.values()}
    assert uses == {"bias": 1, "bias_n2": 1, "zero": 1, "zero_n4": 1, "tied": 2, "one": 4}


def test_one_node_may_not_use_a_vector_twice(parse: Parse, same: Same) -> None:
    model = parse("""g (float[1, 2, 3] x) => (float[1, 2, 3] y) <float[2] v = {1, 2}> {
        [bn] y = BatchNormalization(x, v, v, v, v)
    }""")
    after = normalize(model)
    same(model, after)
    assert set(weights(after)) == {"v", "v_bn", "v_bn_2", "v_bn_3"}


# What must not fold


def test_named_parameters_are_not_folded(parse: Parse, same: Same) -> None:
    model = parse(
        """g (float[N, 2] x) => (float[N, 3] y) <
        float[3, 2] fc.weight = {1, 2, 3, 4, 5, 6}, float logit_scale = {0.5}> {
        t = Transpose(fc.weight)
        e = Exp(logit_scale)
        a = MatMul(x, t)
        y = Mul(a, e)
    }""".replace("fc.weight", "weight")
    )
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Transpose", "Exp", "MatMul", "Mul"]


def test_unnamed_small_constants_fold(parse: Parse, same: Same) -> None:
    model = parse("""g (float[N, 2] x) => (float[N, 2] y) {
        eps = Constant<value_float = 0.5>()
        two = Constant<value_floats = [2.0, 3.0]>()
        e = Sqrt(eps)
        s = Mul(e, two)
        y = Mul(x, s)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Mul"] and set(weights(after)) == {"s"}


def test_big_constants_stay_computed(parse: Parse, same: Same) -> None:
    model = parse("""g (float[1, 64, 2, 2] x) => (float[1, 64, 2, 2] y)
        <int64[4] s = {64, 64, 1, 1}> {
        w = ConstantOfShape<value = float[1] {0.5}>(s)
        y = Conv(x, w)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["ConstantOfShape", "Conv"]


def test_what_the_reference_cannot_compute_stays(
    parse: Parse, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("no such op")

    monkeypatch.setattr("irprune.shape_learning.evaluate", fail)
    model = parse("""g (float[2] x) => (float[2] y) {
        a = Constant<value_floats = [1.0, 2.0]>() [root] b = Sqrt(a) y = Add(x, b) }""")
    log: list[str] = []
    after = normalize(model, log.append)
    same(model, after)
    assert ops(after) == ["Sqrt", "Add"]
    assert log == ["normalize: root (Sqrt) stays, onnx.reference cannot compute it: "
                   "NotImplementedError: no such op"]  # fmt: skip


# Shape arithmetic


def test_static_shape_arithmetic_vanishes(parse: Parse, same: Same) -> None:
    """A channel shuffle as TorchScript writes it."""
    model = parse("""g (float[1, 6, 4, 4] x) => (float[1, 6, 4, 4] y)
        <int64 i = {1}, int64 groups = {2}, int64[1] zero = {0}, int64[1] m = {-1},
         int64[2] hw = {4, 4}> {
        s = Shape(x)
        c = Gather(s, i)
        k = Div(c, groups)
        g1 = Unsqueeze(groups, zero)
        k1 = Unsqueeze(k, zero)
        c1 = Unsqueeze(c, zero)
        target = Concat<axis = 0>(m, g1, k1, hw)
        a = Reshape(x, target)
        b = Transpose<perm = [0, 2, 1, 3, 4]>(a)
        back = Concat<axis = 0>(m, c1, hw)
        y = Reshape(b, back)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Reshape", "Transpose", "Reshape"]
    targets = [
        n.inputs[1].const_value.numpy().tolist() for n in after.ir.graph if len(n.inputs) > 1
    ]
    assert targets == [[-1, 2, 3, 4, 4], [-1, 6, 4, 4]]


@pytest.mark.parametrize(
    ("target", "allowzero", "expected"),
    [
        ("b, c, hw", 0, [0, 6, -1]),
        ("b, c, hw", 1, [0, 6, -1]),
        ("b, m", 0, [0, -1]),
        ("m, c, h, w", 0, [0, 6, 0, 0]),
        ("b, c, h, w", 0, [0, 6, 0, 0]),
        ("bhw, c", 0, [-1, 6]),
        ("z, z, hw", 0, [0, 0, -1]),
        ("c, b, hw", 0, None),
    ],
)
def test_targets_with_dynamic_lengths(
    parse: Parse, same: Same, target: str, allowzero: int, expected: list[int] | None
) -> None:
    model = parse(f"""g (float[N, 6, H, W] x) => (float y)
        <int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[1] i2 = {{2}}, int64[1] i3 = {{3}},
         int64[1] m = {{-1}}, int64[1] z = {{0}}> {{
        r = Relu(x)
        s = Shape(r)
        b = Gather(s, i0)
        c = Gather(s, i1)
        h = Slice(s, i2, i3)
        w = Gather(s, i3)
        hw = Mul(h, w)
        bhw = Mul(b, hw)
        t = Concat<axis = 0>({target})
        v = Reshape<allowzero = {allowzero}>(r, t)
        k = ReduceMax<keepdims = 0>(v)
        n = ReduceMean<axes = [0], keepdims = 1>(v)
        j = ReduceMax<keepdims = 0>(n)
        y = Add(k, j)
    }}""")
    after = normalize(model)
    same(model, after)
    reshape = next(n for n in after.ir.graph if n.op_type == "Reshape")
    assert reshape.inputs[1] is not None
    constant = reshape.inputs[1].const_value
    assert (None if constant is None else constant.numpy().tolist()) == expected
    assert expected is None or reshape.attributes.get_int("allowzero", 0) * (0 in expected) == 0


def test_names_of_dimensions_survive_a_view(parse: Parse, same: Same) -> None:
    model = parse("""g (float[batch, 6, 2, 2] x) => (float[batch, 24] y)
        <int64[2] t = {-1, 24}> { r = Reshape(x, t) y = Relu(r) }""")
    after = normalize(model)
    same(model, after)
    (reshape, _) = after.ir.graph
    assert str(reshape.outputs[0].shape) == "[batch,24]"


def test_sizes_of_a_resize_keep_static_channels(parse: Parse, same: Same) -> None:
    model = parse("""g (float[N, 3, H, W] x, float[N, 3, h, w] small) => (float[N, 3, A, B] y)
        <int64[1] two = {2}, int64[1] zero = {0}, int64[1] four = {4}> {
        s = Shape(x)
        size = Slice(s, two, four)
        p = Shape(small)
        head = Slice(p, zero, two)
        wide = Cast<to = 6>(head)
        back = Cast<to = 7>(wide)
        sizes = Concat<axis = 0>(back, size)
        y = Resize<mode = "nearest">(small, , , sizes)
    }""")
    after = normalize(model)
    same(model, after)
    # Every Shape is read by a Gather of constant positions, none of them the channels.
    for node in after.ir.graph:
        if node.op_type == "Shape":
            (use,) = node.outputs[0].uses()
            assert use.node.op_type == "Gather" and use.node.inputs[1] is not None
            assert use.node.inputs[1].const_value.numpy().tolist() in ([0], [2, 3])
    resize = list(after.ir.graph)[-1]
    assert resize.inputs[3] is not None
    concat = resize.inputs[3].producer()
    assert concat is not None and concat.op_type == "Concat"
    assert concat.inputs[1] is not None and concat.inputs[1].const_value.numpy().tolist() == [3]


def test_expand_as_torchscript_writes_it(parse: Parse, same: Same) -> None:
    model = parse("""g (float[N, 4, 1] x, float[N, 4, 5] like) => (float[N, 4, 5] y)
        <int64[3] asked = {-1, -1, 5}, int64 m = {-1}> {
        s = Shape(like)
        n = ConstantOfShape<value = int64[1] {1}>(three)
        minus = Mul(n, m)
        open = Equal(asked, minus)
        t = Where(open, s, asked)
        three = Identity(size)
        size = Shape(s)
        y = Expand(x, t)
    }""")
    model.ir.graph.sort()
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Shape", "Gather", "Concat", "Expand"]


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_old_opsets_with_attributes(parse: Parse, same: Same, opset: int) -> None:
    model = parse("""g (float[N, 4, 3] x) => (float[N, 12] y, float[N, 2, 3] z) {
        s = Shape(x)
        n = Slice<starts = [0], ends = [1], axes = [0]>(s)
        c = Slice<starts = [1], ends = [2], axes = [0]>(s)
        k = Slice<starts = [2], ends = [9223372036854775807], axes = [0]>(s)
        ck = Mul(c, k)
        b = Squeeze<axes = [0]>(n)
        b1 = Unsqueeze<axes = [0]>(b)
        t = Concat<axis = 0>(b1, ck)
        y = Reshape(x, t)
        z = Slice<starts = [2], ends = [4], axes = [1]>(x)
    }""", opset, ir_version=4)  # fmt: skip
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Reshape", "Slice"]


def test_a_scale_from_the_file_may_meet_a_length(parse: Parse, same: Same) -> None:
    """Sizes of an interpolation: floor(length * 2.0), where the factor is an initializer."""
    model = parse("""g (float[N, 3, 4, 4] x) => (float[N, 3, A, B] y)
        <float factor = {2.0}, int64[1] two = {2}, int64[1] zero = {0}, int64[1] four = {4}> {
        s = Shape(x)
        size = Slice(s, two, four)
        f = Cast<to = 1>(size)
        scaled = Mul(f, factor)
        whole = Floor(scaled)
        hw = Cast<to = 7>(whole)
        head = Slice(s, zero, two)
        sizes = Concat<axis = 0>(head, hw)
        y = Resize<mode = "nearest">(x, , , sizes)
    }""")
    after = normalize(model)
    same(model, after)
    assert ops(after) == ["Shape", "Gather", "Concat", "Resize"]
    assert str(after.ir.graph.outputs[0].shape) == "[N,3,A,B]"


def test_a_late_shape_follows_from_an_early_fold(parse: Parse, same: Same) -> None:
    """Each split depends on shapes that only the fold before it makes known."""
    steps = "\n".join(
        f"""s{k} = Shape(x{k})
        c{k} = Gather(s{k}, one)
        h{k} = Div(c{k}, two)
        l{k} = Slice(x{k}, zero, h{k}, one)
        r{k} = Slice(x{k}, h{k}, c{k}, one)
        x{k + 1} = Concat<axis = 1>(r{k}, l{k})"""
        for k in range(12)
    )
    model = parse(f"""g (float[N, 6, 3] x0) => (float[N, 6, 3] y)
        <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}> {{
        {steps}
        y = Relu(x12)
    }}""")
    context, after = Context(), model.clone()
    Normalize().run(after, context)
    same(model, after)
    assert set(ops(after)) == {"Slice", "Concat", "Relu"}
    assert Normalize().run(after, Context()) == {}


# The contract


def test_what_users_rely_on_is_kept(parse: Parse) -> None:
    model = parse(
        "g (float[N, 2] x) => (float[N, 2] y, float[M, 2] z) { y = Relu(x) z = Identity(x) }", 17
    )
    model.ir.metadata_props["author"] = "me"
    model.ir.producer_name = "torch"
    after = normalize(model)
    assert after.ir.metadata_props == {"author": "me"} and after.ir.producer_name == "torch"
    assert [str(v.shape) for v in after.ir.graph.outputs] == ["[N,2]", "[M,2]"]
    assert after.ir.ir_version == 8 and after.ir.opset_imports == {"": 17}


def test_listed_initializers_are_constants(tmp_path: Path, same: Same) -> None:
    proto = parser.parse_model("""<ir_version: 3, opset_import: ["": 8]>
        g (float[1, 2] x, int64[2] t, float[2] b) => (float[2, 1] y)
        <int64[2] t = {2, 1}> { a = Add(x, b) y = Reshape(a, t) }""")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2, np.float32), "b"))
    onnx.save(proto, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert model.overridable == ("t", "b")
    normalize(model).save(tmp_path / "n.onnx")
    saved = onnx.load(tmp_path / "n.onnx")
    assert [v.name for v in saved.graph.input] == ["x", "t", "b"]


def test_the_default_domain_has_two_names(parse: Parse) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.ir.opset_imports["ai.onnx"] = model.ir.opset_imports.pop("")
    Normalize().run(model, Context())
    assert model.ir.opset_imports == {"": 17}


@pytest.mark.parametrize(("opset", "message"), [(6, "imports opset 6"), (None, "no opset")])
def test_an_old_opset_is_refused(parse: Parse, opset: int | None, message: str) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.ir.opset_imports.clear()
    if opset is not None:
        model.ir.opset_imports[""] = opset
    with pytest.raises(IrpruneError, match=rf"{message}.*version_converter"):
        Normalize().run(model, Context())


def test_it_stands_before_prune(parse: Parse) -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    model.pending = Plan.empty()
    with pytest.raises(IrpruneError, match="place `normalize` before `prune`"):
        Normalize().run(model, Context())


def test_contradicting_shapes_are_refused(parse: Parse) -> None:
    model = parse(
        "g (float[2, 3] x) => (float[2, 3] y) <float[4] b = {1, 2, 3, 4}> { y = Add(x, b) }"
    )
    with pytest.raises(IrpruneError, match="shape inference failed"):
        Normalize().run(model, Context())


# Real models

SIZES = {"p2o.DynamicDimension.1": 64, "p2o.DynamicDimension.2": 96, "sequence": 512}


def real_feeds(model: Model) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.ir.graph.inputs:
        assert value.shape is not None and value.dtype is not None and value.name is not None
        dims = [d if isinstance(d, int) else d.value for d in value.shape.dims]
        shape = [d if isinstance(d, int) else SIZES.get(d or "", 2) for d in dims]
        if value.name == "sr":
            feeds[value.name] = np.array(16000)
        elif value.name == "input" and dims == [None, None]:
            feeds[value.name] = rng.standard_normal((2, 512)).astype(np.float32)
        elif value.dtype.is_integer():
            feeds[value.name] = rng.integers(0, 5, shape).astype(value.dtype.numpy())
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(value.dtype.numpy())
    return feeds


@pytest.mark.shared
def test_real_models_compute_the_same(shared: Path, same: Same) -> None:
    files = sorted((shared / "models" / "onnx").glob("*.onnx"))
    assert files
    for file in files:
        model = load(file)
        after = model.clone()
        Normalize().run(after, Context())
        assert not {"Constant", "Dropout"} & set(ops(after)), file.name
        assert Normalize().run(after.clone(), Context()) == {}, file.name
        if file.stem != "superresolution_prepost_op18":  # needs ops that onnxruntime lacks
            same(model, after, feeds=real_feeds(model))

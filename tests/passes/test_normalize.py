"""Normalisation: every behaviour on a small graph, the same outputs before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from normalized import normalize, ops, weights
from onnx import parser

from irprune.errors import IrpruneError
from irprune.frontends.onnx import load
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.plan import Plan

Parse = Callable[..., Model]
Same = Callable[..., None]


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

    monkeypatch.setattr("irprune.folding.learning.evaluate", fail)
    model = parse("""g (float[2] x) => (float[2] y) {
        a = Constant<value_floats = [1.0, 2.0]>() [root] b = Sqrt(a) y = Add(x, b) }""")
    log: list[str] = []
    after = normalize(model, log.append)
    same(model, after)
    assert ops(after) == ["Sqrt", "Add"]
    assert log == ["normalize: root (Sqrt) stays, onnx.reference cannot compute it: "
                   "NotImplementedError: no such op"]  # fmt: skip


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

"""Cleanup: what nothing needs goes."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from irprune import structure
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.cleanup import Cleanup
from irprune.plan import Plan

Parse = Callable[..., Model]
Same = Callable[..., None]

GRAPH = """g (float[N, 2] x) => (float[N, 2] y)
    <float[2] used = {1, 2}, float[2] idle = {3, 4}> {
    dead = Neg(x)
    deader = Exp(dead)
    a = Relu(x)
    y = Add(a, used)
}"""


def test_what_is_dead_goes(parse: Parse, same: Same) -> None:
    model = parse(GRAPH)
    model.ir.opset_imports["ai.onnx.ml"] = 3
    after = model.clone()
    changed = Cleanup().run(after, Context())
    structure.check(after, Context())
    same(model, after)
    assert changed == {"removed": 3, "opset-imports": 1}
    assert [node.op_type for node in after.ir.graph] == ["Relu", "Add"]
    assert set(after.ir.graph.initializers) == {"used"}
    assert after.ir.opset_imports == {"": 17}
    assert Cleanup().run(after, Context()) == {}


def test_stale_shapes_go(parse: Parse) -> None:
    model = parse(GRAPH)
    relu = list(model.ir.graph)[2]
    relu.outputs[0].shape = ir.Shape([7, 7, 7])
    Cleanup().run(model, Context())
    assert str(relu.outputs[0].shape) == "[N,2]"


def test_a_compacted_model_may_be_cleaned(parse: Parse) -> None:
    model = parse(GRAPH)
    model.plan = Plan.empty()
    assert Cleanup().run(model, Context()) == {"removed": 3}


def test_a_pending_plan_may_not_lose_its_tensors(parse: Parse) -> None:
    model = parse(GRAPH)
    model.pending = Plan.empty()
    with pytest.raises(IrpruneError, match="place `cleanup` after `compact`"):
        Cleanup().run(model, Context())

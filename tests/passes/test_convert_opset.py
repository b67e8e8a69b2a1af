"""`convert-opset`: another opset, the same network, names, weights and IR version."""

from __future__ import annotations

import numpy as np
import pytest
from strategies import Net, feeds_of, proto_of, relative_error, run

from irprune import api
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.convert_opset import ConvertOpset
from irprune.passes.normalize import Normalize
from irprune.roles import BUFFER, PARAMETER, TRAINED
from irprune.structure import check


def _net(opset: int) -> Model:
    """Ops whose axes, sizes and bounds move from attributes to inputs."""
    net = Net(opset)
    x = net.conv(net.input("N", 3, 8, 8), 3, 32, 3, 3, name="a")
    x = net.op("Clip", x, min=-1.0, max=2.0, name="clip")
    x = net.op("Pad", x, pads=[0, 0, 1, 1, 0, 0, 1, 1], name="pad")
    x = net.op("Slice", x, starts=[1], ends=[31], axes=[1], name="slice")
    x = net.op("ReduceMean", x, axes=[2, 3], keepdims=1, name="mean")
    x = net.op("Squeeze", x, axes=[2, 3], name="squeezed")
    net.linear(x, 30, 3, "y")
    return net.model()


@pytest.mark.parametrize("to", [9, 11, 13, 18, 21])
def test_the_network_stays_the_same(to: int) -> None:
    model = _net(9)
    model.ir.metadata_props["author"] = "someone"
    weight = model.ir.graph.initializers["a.w"].const_value
    marks = {"a.w": TRAINED, "y.w": BUFFER}
    for name, mark in marks.items():
        model.ir.graph.initializers[name].metadata_props[PARAMETER] = mark
    before = proto_of(model)
    report = ConvertOpset(to).run(model, Context())
    check(model, Context())
    assert report == ({} if to == 9 else {"from": 9, "to": to})
    assert model.ir.opset_imports[""] == to
    assert model.ir.ir_version == 8
    assert model.ir.metadata_props["author"] == "someone"
    assert [v.name for v in model.ir.graph.inputs] == ["x"]
    assert model.ir.graph.initializers["a.w"].const_value is weight
    for name, mark in marks.items():
        assert model.ir.graph.initializers[name].metadata_props == {PARAMETER: mark}
    feeds = feeds_of(before, 1)
    expected, found = run(before, feeds), run(proto_of(model), feeds)
    for name, array in expected.items():
        assert relative_error(found[name], array) == 0, name


def test_a_converted_network_is_pruned_and_proved() -> None:
    result = api.run(
        "convert-opset{to=18}, normalize, prune{ratio=0.4 scope=local}, compact", _net(9)
    )
    assert result.model.ir.opset_imports[""] == 18
    assert [row["verdict"] for row in result.report["proof"]] == ["proved", "proved"]
    assert not np.all(result.plan.axes["a.w"][0])


def test_a_missing_adapter_is_named() -> None:
    net = Net(15)
    net.op("Shape", net.input(2), start=0, name="y")
    with pytest.raises(IrpruneError, match="opset 15 to 13: No Adapter .* for Shape"):
        ConvertOpset(13).run(net.model(), Context())


@pytest.mark.parametrize(
    ("to", "reason"), [(None, "needs an opset"), (6, "is not one of 7"), (999, "is not one of 7")]
)
def test_unusable_opsets_are_refused(to: int | None, reason: str) -> None:
    with pytest.raises(IrpruneError, match=reason):
        ConvertOpset(to).run(_net(9), Context())


def test_it_comes_before_prune() -> None:
    with pytest.raises(IrpruneError, match="edits the graph that the plan refers to"):
        api.run("normalize, prune{ratio=0.4}, convert-opset{to=18}, compact", _net(9))


def test_functions_must_be_inlined_first() -> None:
    from onnx import parser

    model = Model.from_proto(
        parser.parse_model(
            """<ir_version: 8, opset_import: ["": 17, "f": 1]>
            g (float[2] x) => (float[2] y) { y = f.twice(x) }
            <opset_import: ["": 17], domain: "f"> twice (a) => (b) { b = Add(a, a) }"""
        )
    )
    with pytest.raises(IrpruneError, match="functions cannot be converted"):
        ConvertOpset(18).run(model, Context())
    Normalize().run(model, Context())
    ConvertOpset(18).run(model, Context())
    assert model.ir.opset_imports[""] == 18

"""The printer, against golden files.

After a deliberate change, `IRPRUNE_UPDATE_GOLDEN=1 pytest tests/test_text.py` writes them anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from strategies import Net, compacted

from irprune.channels import analyse
from irprune.model import Model
from irprune.plan import Plan
from irprune.text import print_model

GOLDEN = Path(__file__).parent / "golden"


def _residual() -> Model:
    """Convolutions with attributes, a residual sum, a reshape and a classifier."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("N", 3, 8, 8), 3, 6, 3, 3, name="a", pads=[1] * 4))
    c = net.conv(x, 6, 6, 3, 3, name="b", group=2, pads=[1] * 4)
    x = net.op("LeakyRelu", net.op("Add", x, c), alpha=0.25)
    x = net.op("Reshape", net.op("GlobalAveragePool", x), net.ints(0, -1))
    net.linear(x, 6, 2, "y")
    return net.model()


def _compacted() -> Model:
    """The same after every second class of the residual stream went."""
    model = _residual()
    channels = analyse(model.ir.graph, tie=True)
    keep = np.ones(channels.count, np.bool_)
    classes = np.unique(channels.producers[0].classes)
    keep[classes[::2]] = False
    plan: Plan = channels.plan(keep)
    return compacted(model, plan)


def _control_flow() -> Model:
    """A body, a missing optional input, a constant node, and unknown shapes."""
    net = Net()
    x = net.input("N", "T", name="x")
    bodies = {
        branch: helper.make_graph(
            [helper.make_node(kind, [x], [f"{branch}.out"], f"{branch}.node")],
            branch,
            [],
            [helper.make_tensor_value_info(f"{branch}.out", TensorProto.FLOAT, ["N", "T"])],
        )
        for branch, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    chosen = net.op("If", net.constant(np.bool_(True)), name="c", **bodies)
    value = numpy_helper.from_array(np.float32(1))
    high = net.op("Constant", name="high", value=value)
    x = net.op("Clip", chosen, "", high, name="clipped")
    net.op("Reshape", x, net.input("R", name="shape", dtype=TensorProto.INT64), name="y")
    return net.model()


@pytest.mark.parametrize("make", [_residual, _compacted, _control_flow])
def test_the_text_is_the_golden_one(make: Callable[[], Model]) -> None:
    path = GOLDEN / f"{make.__name__[1:]}.txt"
    text = print_model(make().ir)
    if os.environ.get("IRPRUNE_UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()
    assert print_model(make().clone().ir) == text


def test_only_small_constants_are_shown() -> None:
    net = Net()
    net.op("Add", net.input(9), net.constant(np.arange(9, dtype=np.float32), "large"), name="a")
    net.op("Mul", "a", net.constant(np.array([0.5], np.float32), "small"), name="y")
    lines = print_model(net.model().ir).splitlines()
    assert "weight %large : float[9]" in lines
    assert "weight %small : float[1] = [0.5]" in lines

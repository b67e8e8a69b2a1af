"""What the tests of inexact ops share: norms as exporters write them out, and the comparison.

The comparison runs the masked and gathered reference that the proof uses; what that reference
computes is tested against numpy in `tests/proof/test_gathered.py`.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from strategies import (
    Net,
    Trial,
    compacted,
    feeds_of,
    kept_part,
    proto_of,
    random_keep,
    relative_error,
    run,
)

from irprune.channels import analyse
from irprune.model import Model
from irprune.plan import Plan
from irprune.proof.reference import masked_reference
from irprune.walk import Heads

FORMS = {
    "LayerNormalization": ("pow-div", "mul-reciprocal", "folded"),
    "RMSNormalization": ("pow-div", "mul-reciprocal", "negative-power"),
    "LpNormalization": ("clip-expand", "max", "plain"),
}
"""The ways in which norms are written out, by the op that computes them in one node."""


class NormNet(Net):
    """A net with normalisations of one node and of several."""

    def proto(self, *outputs: str) -> onnx.ModelProto:
        """onnx infers nothing for a GroupNormalization, whose output is like its data."""
        nodes = self._nodes
        self._nodes = [
            helper.make_node("Identity", node.input[:1], node.output, node.name)
            if node.op_type == "GroupNormalization"
            else node
            for node in nodes
        ]
        model = super().proto(*outputs)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        self._nodes = nodes
        return model

    def scalar(self, number: float) -> str:
        return self.constant(np.array(number, np.float32))

    def reduce(self, kind: str, x: str, axis: int, name: str = "") -> str:
        return self.axes_op(kind, x, [axis], 18, name, keepdims=1)

    def written_out(self, kind: str, form: str, x: str, axis: int, rank: int, dim: int) -> str:
        """A norm over one axis of ``dim`` positions, of several nodes, named ``c``."""
        if kind == "LpNormalization":
            return self._length(form, x, axis, rank, dim)
        if kind == "LayerNormalization":
            mean = self.reduce("ReduceMean", x, axis, "mean")
            centred = self.op("Sub", x, mean)
        else:
            centred = x
        square = ("Mul", centred) if form == "mul-reciprocal" else ("Pow", self.scalar(2))
        square = self.op(square[0], centred, square[1])
        variance = self.reduce("ReduceMean", square, axis, "variance")
        raised = self.op("Add", variance, self.scalar(1e-5))
        if form == "negative-power":
            normal = self.op("Mul", x, self.op("Pow", raised, self.scalar(-0.5)))
        elif form == "pow-div":
            normal = self.op("Div", centred, self.op("Sqrt", raised))
        else:
            inverse = self.op("Reciprocal", self.op("Sqrt", raised))
            if form == "folded":  # scale / deviation is computed first
                inverse = self.op("Mul", inverse, self._parameter("c.scale", axis, rank, dim))
                less = self.op("Mul", "mean", inverse)
                less = self.op("Sub", self._parameter("c.bias", axis, rank, dim), less)
                return self.op("Add", self.op("Mul", x, inverse), less, name="c")
            normal = self.op("Mul", centred, inverse)
        scaled = self.op("Mul", normal, self._parameter("c.scale", axis, rank, dim))
        return self.op("Add", scaled, self._parameter("c.bias", axis, rank, dim), name="c")

    def _parameter(self, name: str, axis: int, rank: int, dim: int) -> str:
        return self.weight(dim, *[1] * (rank - 1 - axis % rank), name=name)

    def _length(self, form: str, x: str, axis: int, rank: int, dim: int) -> str:
        length = self.reduce("ReduceL2", x, axis, "length")
        if form == "clip-expand":
            if self.opset < 11:
                length = self.op("Clip", length, min=1e-6)
            else:
                length = self.op("Clip", length, self.scalar(1e-6))
            shape = [dim if k == axis % rank else 1 for k in range(rank)]
            length = self.op("Expand", length, self.ints(*shape))
        elif form == "max":
            length = self.op("Max", length, self.scalar(1e-6))
        return self.op("Div", x, length, name="c")


def check_gathered(
    model: Model,
    seed: int,
    allow: tuple[str, ...] = ("inexact",),
    heads: Heads = "inner",
    tolerance: float = 2e-5,
) -> Trial:
    """Remove random classes; assert that every activation equals the reference's where kept."""
    channels = analyse(model.ir.graph, heads, allow)
    plan = channels.plan(random_keep(channels, seed))
    small = compacted(model, plan)
    check_reference(model, small, plan, seed, tolerance)
    return Trial(model, channels, plan, small)


def check_reference(
    model: Model, small: Model, plan: Plan, seed: int, tolerance: float = 2e-5
) -> None:
    """Assert that the compacted model computes what the reference does at kept positions."""
    proto = proto_of(model)
    feeds = feeds_of(proto, seed)
    expected = run(proto_of(Model.from_ir(masked_reference(model.ir, plan))), feeds)
    actual = run(proto_of(small), feeds)
    for node in proto.graph.node:
        for name in filter(None, node.output):
            array = kept_part(expected[name], plan.axes.get(name, {}))
            error = relative_error(actual[name], array)
            assert error <= tolerance, f"{name} of {node.op_type} differs by {error:g}"

"""What the tests of emptied branches share: residual nets, plans that empty, the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper
from strategies import Net, feeds_of, masked, proto_of, relative_error, run

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import Channels, analyse
from irprune.groups import Group, coupled_groups
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import Compact
from irprune.plan import Plan
from irprune.proof.prover import Proof, prove
from irprune.structure import check
from irprune.walk import Heads


class Blocks(Net):
    """Residual blocks on images of `width` channels; weights are named after their block."""

    def biased(
        self, x: str, inner: int, outer: int, size: int = 1, name: str = "", **more: object
    ) -> str:
        """A convolution with a bias other than zero; kernels of 3 are padded."""
        name = name or self._name("conv")
        w = self.weight(
            outer, inner // int(str(more.get("group", 1))), size, size, name=f"{name}.w"
        )
        b = self.weight(outer, low=0.5, name=f"{name}.b")
        return self.op("Conv", x, w, b, name=name, pads=[size // 2] * 4, **more)

    def norm(self, x: str, width: int, name: str = "") -> str:
        name = name or self._name("norm")
        scale, bias, mean = (self.weight(width, name=f"{name}.{part}") for part in "sbm")
        return self.op(
            "BatchNormalization", x, scale, bias, mean, self.weight(width, low=0.5), name=name
        )

    def relu(self, x: str, name: str = "") -> str:
        return self.op("Relu", x, name=name)

    # Branches: from x of `width` channels to as many, through `inner` channels named <name>.w

    def plain(self, x: str, width: int, inner: int, name: str) -> str:
        """Convolution, BatchNormalization, Relu, convolution."""
        y = self.relu(self.norm(self.conv(x, width, inner, name=name), inner))
        return self.conv(y, inner, width, name=f"{name}.end")

    def basic(self, x: str, width: int, inner: int, name: str) -> str:
        """ResNet's basic block, with padding and BatchNormalization at the end."""
        y = self.relu(self.norm(self.biased(x, width, inner, 3, name=name), inner))
        return self.norm(self.biased(y, inner, width, 3), width)

    def early(self, x: str, width: int, inner: int, name: str) -> str:
        """Pre-activation: BatchNormalization and Relu come first."""
        y = self.conv(self.relu(self.norm(x, width)), width, inner, name=name)
        return self.biased(self.relu(self.norm(y, inner)), inner, width, 3)

    def bottleneck(self, x: str, width: int, inner: int, name: str) -> str:
        """Three convolutions: emptying the first leaves a constant before the third."""
        y = self.relu(self.biased(x, width, inner, name=name))
        y = self.relu(self.biased(y, inner, inner + 1, 3, name=f"{name}.middle"))
        return self.biased(y, inner + 1, width)

    def stacked(self, x: str, width: int, inner: int, name: str) -> str:
        """Three padded convolutions: the first alone cannot be emptied."""
        y = self.relu(self.biased(x, width, inner, 3, name=name))
        y = self.relu(self.biased(y, inner, inner, 3, name=f"{name}.middle"))
        return self.biased(y, inner, width, 3)

    def inverted(self, x: str, width: int, inner: int, name: str) -> str:
        """MobileNetV2: expanded, depthwise, projected."""
        y = self.op("Clip", self.biased(x, width, inner, name=name))
        y = self.op("HardSwish", self.biased(y, inner, inner, 3, group=inner))
        return self.norm(self.conv(y, inner, width), width)

    def squeezed(self, x: str, width: int, inner: int, name: str) -> str:
        """Squeeze and excitation in the middle, a scale per channel at the end."""
        y = self.relu(self.biased(x, width, inner, 3, name=name))
        gate = self.relu(
            self.biased(self.op("GlobalAveragePool", y), inner, 3, name=f"{name}.gate")
        )
        gate = self.op("Sigmoid", self.biased(gate, 3, inner))
        y = self.biased(self.op("Mul", y, gate), inner, width)
        return self.op("Mul", y, self.weight(1, width, 1, 1, name=f"{name}.gamma"))

    def divided(self, x: str, width: int, inner: int, name: str) -> str:
        """Split into halves that go their ways, concatenated and shuffled again."""
        y = self.biased(x, width, 2 * inner, name=name)
        a, b = self.split("Split", y, names=[f"{name}.one", f"{name}.two"], axis=1)
        y = self.op(
            "Concat", self.relu(a), self.biased(b, inner, inner, name=f"{name}.right"), axis=1
        )
        y = self.op("Reshape", y, self.ints(0, 2, inner, 4, 4))
        y = self.op("Transpose", y, perm=[0, 2, 1, 3, 4])
        y = self.op("Reshape", y, self.ints(0, 2 * inner, 4, 4))
        return self.conv(y, 2 * inner, width)

    def long(self, x: str, width: int, inner: int, name: str) -> str:
        """Most of the others one after another."""
        for kind in ("inverted", "squeezed", "divided", "forked"):
            x = self.relu(getattr(self, kind)(x, width, inner, f"{name}.{kind}"))
        return self.basic(x, width, inner, name)

    def forked(self, x: str, width: int, inner: int, name: str) -> str:
        """Two paths of convolutions, concatenated."""
        left = self.relu(self.biased(x, width, inner, name=name))
        right = self.biased(x, width, inner, 3, name=f"{name}.right")
        return self.biased(self.op("Concat", left, right, axis=1), 2 * inner, width)

    BRANCHES = (
        *("plain", "basic", "early", "bottleneck", "stacked", "inverted", "squeezed", "divided"),
        *("forked", "long"),
    )

    def block(self, x: str, kind: str, width: int, inner: int, name: str) -> str:
        """A residual block around a branch; the sum is named ``<name>.sum``."""
        return self.op("Add", x, getattr(self, kind)(x, width, inner, name), name=f"{name}.sum")

    # Transformers: from x of (batch, time, width) to the same

    def dense(self, x: str, inner: int, outer: int, name: str, bias: bool = True) -> str:
        y = self.linear(x, inner, outer, name=name if not bias else f"{name}.product")
        return (
            self.op("Add", y, self.weight(outer, low=0.5, name=f"{name}.b"), name=name)
            if bias
            else y
        )

    def attention(self, x: str, width: int, heads: int, name: str, bias: bool = True) -> str:
        """Multi-head attention; `width` is a multiple of `heads`."""

        def parted(part: str, *order: int) -> str:
            y = self.dense(x, width, width, f"{name}.{part}", bias)
            y = self.op("Reshape", y, self.ints(0, 0, heads, width // heads))
            return self.op("Transpose", y, perm=order)

        scores = self.op("MatMul", parted("q", 0, 2, 1, 3), parted("k", 0, 2, 3, 1))
        y = self.op("MatMul", self.op("Softmax", scores, axis=-1), parted("v", 0, 2, 1, 3))
        y = self.op("Transpose", y, perm=[0, 2, 1, 3])
        return self.dense(
            self.op("Reshape", y, self.ints(0, 0, width)), width, width, f"{name}.o", bias
        )

    def feedforward(self, x: str, width: int, inner: int, name: str, bias: bool = True) -> str:
        y = self.op("Elu", self.dense(x, width, inner, f"{name}.up", bias))
        return self.dense(y, inner, width, f"{name}.down", bias)


def group_of(groups: Iterable[Group], weight: str) -> Group:
    """The group that a weight produces."""
    return next(group for group in groups if weight in group.names)


def emptying(model: Model, *weights: str, heads: Heads = "inner") -> Plan:
    """The plan that removes every class that one of the weights produces."""
    channels = analyse(model.ir.graph, heads)
    groups = coupled_groups(channels)
    return channels.plan(without(channels, [group_of(groups, weight) for weight in weights]))


def without(channels: Channels, groups: Sequence[Group]) -> np.ndarray:
    keep = np.ones(channels.count, np.bool_)
    for group in groups:
        keep[group.classes] = False
    return keep


def removed(model: Model, plan: Plan, runner: OrtRunner | None = None, seed: int = 0) -> Model:
    """The compacted model; asserts that it is clean and computes what the masked one does."""
    small = model.clone()
    small.pending = Plan.from_json(plan.to_json())
    Compact().run(small, Context())
    check(small, Context())
    assert_clean(small)
    before, after = proto_of(model), proto_of(small)
    feeds = feeds_of(before, seed)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in _infos(before)}
    expected, actual = run(masked(before, plan, ranks), feeds), run(after, feeds)
    common = actual.keys() & expected.keys()
    assert {v.name for v in before.graph.output} <= common
    for name in common:
        array = expected[name]
        for axis, mask in plan.axes.get(name, {}).items():
            array = np.compress(mask, array, axis)
        assert relative_error(actual[name], array) <= 2e-5, name
    if runner is not None:
        proof = proved(model, small, plan, runner)
        assert proof.verdict == "proved", proof.reason
    return small


def proved(model: Model, small: Model, plan: Plan, runner: OrtRunner) -> Proof:
    context = Context(shapes={}, runner=lambda: runner)
    return prove(model.ir, small.ir, plan, context, seeds=1)


def assert_clean(model: Model) -> None:
    """Assert that no node, initializer or stated shape is left that nobody needs."""
    graph = proto_of(model).graph
    read = {name for node in graph.node for name in node.input}
    outputs = {value.name for value in graph.output}
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        assert set(node.output) & (read | outputs), f"nobody reads what {node.name} makes"
        if node.op_type == "Split":
            assert set(node.output) <= read | outputs
    weights = {tensor.name for tensor in graph.initializer}
    assert weights <= read | outputs
    assert {value.name for value in graph.value_info} <= made | weights
    assert all(0 not in tensor.dims for tensor in graph.initializer)
    assert [v.name for v in graph.input if v.name] == [v.name for v in model.ir.graph.inputs]


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def weight(model: Model, name: str) -> np.ndarray:
    (found,) = (t for t in proto_of(model).graph.initializer if t.name == name)
    return numpy_helper.to_array(found)


def _infos(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = [
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in proto.graph.initializer
    ]
    return [*proto.graph.input, *proto.graph.value_info, *proto.graph.output, *weights]

"""What the property tests share: graphs in a few lines, random plans, and the comparison.

The comparison is independent of the package's own proof: it masks contractions by its own table
of which operand axes each op sums away, and runs both graphs in this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from hypothesis import strategies as st
from lowered import lowered_outputs
from onnx import TensorProto, helper, numpy_helper

from irprune.channels import Channels, analyse
from irprune.cost import CostModel
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.compact import compact_graph
from irprune.plan import Balanced, Kept, Plan, count
from irprune.shapes import infer
from irprune.structure import check
from irprune.walk import Heads

Dim = int | str
Arrays = dict[str, npt.NDArray[Any]]

SYMBOLS = {"N": 2, "T": 3, "TEN": 10}
"""Lengths that symbolic dimensions get when a graph runs; others get 2."""

seeds = st.integers(0, 2**31)
batches: st.SearchStrategy[Dim] = st.sampled_from([1, 2, "N"])
widths = st.integers(1, 6)


class Net:
    """A graph under construction; methods that add something return the name of its value."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._count = 0

    def _name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def input(self, *dims: Dim, name: str = "x", dtype: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, dtype, dims))
        return name

    def weight(self, *shape: int, name: str = "", low: float | None = None) -> str:
        """Normal random numbers, or with ``low`` uniform ones between it and ``low + 1``."""
        numbers = self.random.normal(size=shape)
        if low is not None:
            numbers = self.random.uniform(low, low + 1, size=shape)
        return self.constant(numbers.astype(np.float32), name or self._name("w"))

    def constant(self, numbers: npt.ArrayLike, name: str = "") -> str:
        array = np.asarray(numbers)
        name = name or self._name("k")
        self._weights.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output, named ``name``."""
        return self.split(kind, *inputs, names=[name or self._name(kind.lower())], **attributes)[0]

    def split(
        self, kind: str, *inputs: str, names: Sequence[str], **attributes: Any
    ) -> Sequence[str]:
        """A node with several outputs."""
        node = f"{names[0]}.{kind}"
        self._nodes.append(helper.make_node(kind, inputs, names, node, **attributes))
        return names

    # Ops whose form depends on the opset

    def axes_op(
        self, kind: str, x: str, axes: Sequence[int], since: int, name: str = "", **attributes: Any
    ) -> str:
        """An op that takes its axes as an input from opset ``since``, before as an attribute."""
        if self.opset >= since:
            return self.op(kind, x, self.ints(*axes), name=name, **attributes)
        return self.op(kind, x, name=name, axes=list(axes), **attributes)

    # Producers and consumers

    def conv(
        self, x: str, inner: int, outer: int, *kernel: int, name: str = "", **attributes: Any
    ) -> str:
        """A convolution from ``inner`` to ``outer`` channels with weight ``<name>.w``."""
        name = name or self._name("conv")
        kernel = kernel or (1, 1)
        w = self.weight(outer, inner // attributes.get("group", 1), *kernel, name=f"{name}.w")
        return self.op("Conv", x, w, name=name, **attributes)

    def linear(self, x: str, inner: int, outer: int, name: str = "") -> str:
        """A MatMul along the last axis with weight ``<name>.w``."""
        name = name or self._name("linear")
        return self.op("MatMul", x, self.weight(inner, outer, name=f"{name}.w"), name=name)

    def image(
        self, channels: int, batch: Dim = 1, size: Sequence[Dim] = (4, 4), name: str = "p"
    ) -> str:
        """A graph input and a convolution that makes ``channels`` channels of it on axis 1."""
        x = self.input(batch, 2, *size, name=f"{name}.x")
        return self.conv(x, 2, channels, *[1] * len(size), name=name)

    def tokens(self, channels: int, batch: Dim = 1, length: Dim = 3, name: str = "p") -> str:
        """A graph input and a MatMul that makes ``channels`` channels of it on the last axis."""
        return self.linear(self.input(batch, length, 2, name=f"{name}.x"), 2, channels, name)

    def consume(self, x: str, rank: int, axis: int, length: int, name: str = "y") -> str:
        """Sum axis ``axis`` of a value away against a weight ``<name>.w``; a graph output."""
        axis %= rank
        if axis == rank - 1:
            return self.linear(x, length, 3, name)
        if axis == rank - 2:
            return self.op("MatMul", self.weight(3, length, name=f"{name}.w"), x, name=name)
        if axis == 1:
            return self.conv(x, length, 3, *[1] * (rank - 2), name=name)
        order = [*(k for k in range(rank) if k != axis), axis]
        return self.linear(self.op("Transpose", x, perm=order), length, 3, name)

    def proto(self, *outputs: str) -> onnx.ModelProto:
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self._nodes, "net", self._inputs, results, self._weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def model(self, *outputs: str) -> Model:
        """The graph with inferred shapes."""
        model = Model.from_proto(self.proto(*outputs or ("y",)))
        infer(model.ir)
        return model


# Running and masking


def feeds_of(proto: onnx.ModelProto, seed: int) -> Arrays:
    """Random numbers for every graph input; integers lie below 2."""
    random = np.random.default_rng(seed)
    feeds = {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or SYMBOLS.get(d.dim_param, 2) for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        numbers = random.normal(size=shape)
        if not np.issubdtype(dtype, np.floating):
            numbers = random.integers(0, 2, size=shape)
        feeds[value.name] = numbers.astype(dtype)
    return feeds


def run(proto: onnx.ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> Arrays:
    """Every activation of a graph, by name; onnxruntime without optimisations."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(proto)
    known = {value.name for value in exposed.graph.output}
    for node in proto.graph.node:
        fresh = [name for name in node.output if name and name not in known]
        exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fresh)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        exposed.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def summed_axes(node: onnx.NodeProto, ranks: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Yield (input number, axis) of the operand axes that a node sums away."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    rank = ranks.get(node.input[0], 0) if node.input else 0
    if node.op_type in ("Conv", "ConvTranspose"):
        yield 0, 1
    elif node.op_type == "Gemm":
        yield 0, 0 if attributes.get("transA") else 1
        yield 1, 1 if attributes.get("transB") else 0
    elif node.op_type == "MatMul":
        yield 0, rank - 1
        yield 1, max(ranks[node.input[1]] - 2, 0)
    elif node.op_type == "Attention":
        yield from ((0, rank - 1), (1, rank - 1))
    elif node.op_type == "Einsum":
        left, _, right = attributes["equation"].decode().partition("->")
        for index, term in enumerate(left.split(",")):
            last = ranks[node.input[index]] - len(term.replace("...", "."))
            for k, letter in enumerate(term.replace("...", "." * (last + 1))):
                if letter not in right:
                    yield index, k
    elif node.op_type == "ReduceSum":
        yield from ((0, axis) for axis in range(rank))


def masked(proto: onnx.ModelProto, plan: Plan, ranks: Mapping[str, int]) -> onnx.ModelProto:
    """A copy of the graph whose contractions read zero at the positions that the plan drops.

    A ReduceSum may be masked along axes that it leaves alone: those positions are dropped anyway.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    del result.graph.node[:]
    for node in proto.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, axis in summed_axes(node, ranks):
            mask = plan.axes.get(node.input[index], {}).get(axis)
            if mask is None:
                continue
            rank = ranks[node.input[index]]
            shape = [-1 if k == axis else 1 for k in range(rank)]
            stem = f"{node.name}.{index}.{axis}"
            balanced = isinstance(mask, Balanced)
            kept = (mask.raised(rank, axis) if balanced else mask.reshape(shape)).astype(np.float32)
            result.graph.initializer.append(numpy_helper.from_array(kept, f"{stem}.kept"))
            inputs = [copy.input[index], f"{stem}.kept"]
            result.graph.node.append(helper.make_node("Mul", inputs, [f"{stem}.masked"]))
            copy.input[index] = f"{stem}.masked"
        result.graph.node.append(copy)
    return result


def relative_error(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The largest difference relative to the largest finite expected number; inf where not."""
    if actual.shape != expected.shape:
        return np.inf
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(actual, expected) else np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    scale = float(np.abs(expected[finite]).max()) or 1.0
    return float(np.abs(actual[finite] - expected[finite]).max() / scale)


# Plans and the comparison


def random_keep(channels: Channels, seed: int) -> npt.NDArray[np.bool_]:
    """Random kept classes; every tensor axis keeps a position, rows equally many."""
    random = np.random.default_rng(seed)
    keep = random.random(channels.count) < random.uniform(0.2, 0.9)
    keep[0] = True
    flat, starts, _ = channels.unique_axes
    ends = [*starts[1:], len(flat)]
    while len(empty := np.flatnonzero(channels.lengths(keep) == 0)):
        keep[random.choice(flat[starts[empty[0]] : ends[empty[0]]])] = True
    return channels.balanced(keep)


def kept_part(array: npt.NDArray[Any], axes: Mapping[int, Kept]) -> npt.NDArray[Any]:
    """The kept positions of an array, row by row where they differ."""
    for axis, kept in axes.items():
        if isinstance(kept, Balanced):
            moved = np.moveaxis(array, (*kept.per, axis), range(len(kept.per) + 1))
            rows = [moved[row][kept.rows[row]] for row in np.ndindex(kept.rows.shape[:-1])]
            stacked = np.stack(rows).reshape(*kept.rows.shape[:-1], *rows[0].shape)
            array = np.moveaxis(stacked, range(len(kept.per) + 1), (*kept.per, axis))
    for axis, kept in axes.items():
        if not isinstance(kept, Balanced):
            array = np.compress(kept, array, axis)
    return array


@dataclass
class Trial:
    """A model, a plan for it, and what the plan made of it."""

    model: Model
    channels: Channels
    plan: Plan
    small: Model

    def removed(self, name: str, axis: int) -> int:
        """Positions that a tensor axis lost."""
        mask = self.plan.axes.get(name, {}).get(axis)
        return 0 if mask is None else len(mask) - count(mask)


def compacted(model: Model, plan: Plan) -> Model:
    """A structurally checked copy of the model without what the plan drops."""
    small = replace(model.clone(), pending=None)
    compact_graph(small.ir.graph, plan)
    check(small, Context())
    return small


def check_random_plan(
    model: Model, seed: int, heads: Heads = "inner", tolerance: float = 2e-5
) -> Trial:
    """Remove random classes; assert that every activation equals the masked one where kept."""
    channels = analyse(model.ir.graph, heads)
    plan = channels.plan(random_keep(channels, seed))
    small = compacted(model, plan)
    check_equal(model, small, plan, seed, tolerance)
    return Trial(model, channels, plan, small)


def check_equal(model: Model, small: Model, plan: Plan, seed: int, tolerance: float = 2e-5) -> None:
    """Assert that the compacted model computes what the masked one does at kept positions.

    Lowered to torch it does so as well.
    """
    proto, compact = proto_of(model), proto_of(small)
    feeds = feeds_of(proto, seed)
    ranks = {v.name or "": len(v.shape) for v in _values(model) if v.shape is not None}
    expected, actual = run(masked(proto, plan, ranks), feeds), run(compact, feeds)
    for node in proto.graph.node:
        if node.op_type == "Shape":  # the lengths that nobody reads may change
            continue
        for name in filter(None, node.output):
            array = kept_part(expected[name], plan.axes.get(name, {}))
            error = relative_error(actual[name], array)
            assert error <= tolerance, f"{name} of {node.op_type} differs by {error:g}"
    for name, array in lowered_outputs(small, compact, feeds).items():
        assert array.dtype == actual[name].dtype
        error = relative_error(array, actual[name])
        assert error <= tolerance, f"{name} of torch differs by {error:g}"


def proto_of(model: Model) -> onnx.ModelProto:
    from onnx_ir import serde

    proto: onnx.ModelProto = serde.serialize_model(model.ir)
    return proto


def _values(model: Model) -> Iterator[Any]:
    graph = model.ir.graph
    yield from (*graph.inputs, *graph.initializers.values())
    for node in graph:
        yield from node.outputs


# What deterministic tests ask


def value_of(model: Model, name: str) -> Any:
    """The value of that name."""
    return next(v for v in _values(model) if v.name == name)


def ties(
    model: Model, *sites: tuple[str, int], heads: Heads = "inner", channels: Channels | None = None
) -> list[list[int]]:
    """The classes of tensor axes, renumbered 1, 2, ... in order of appearance; 0 is pinned.

    The same index of all rows is tied.
    """
    channels = channels or analyse(model.ir.graph, heads, tie=True)
    numbers = {0: 0}
    rows = []
    for name, axis in sites:
        classes = channels.of(value_of(model, name))[axis]
        assert classes is not None, f"axis {axis} of {name} is opaque"
        rows.append([numbers.setdefault(int(c), len(numbers)) for c in classes])
    return rows


def why(model: Model, name: str, axis: int) -> str:
    """Why the positions of an axis are pinned; asserts that all of them are."""
    channels = analyse(model.ir.graph)
    value = value_of(model, name)
    classes, labels = channels.of(value)[axis], channels.walk.labels[value][axis]
    assert classes is not None and labels is not None and not classes.any()
    return channels.reason(labels) or ""


def macs(model: Model) -> int:
    """Multiply-accumulates of the whole graph."""
    return CostModel(model.ir.graph).full().macs

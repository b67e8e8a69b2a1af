"""Kernels of a base graph: nodes that a runtime runs as one, and how much work they are.

A node that works element by element on what one kernel made belongs to that kernel, whether the
runtime fuses it or not: its cost depends on the same axis lengths. So the split is the same for
every plan, and whatever a runtime fuses, the times of a kernel's nodes add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.channels import Channels
from irprune.ops import rule_for
from irprune.ops.rule import Size
from irprune.protocols import Kernel

Lengths = NDArray[np.int64]
Numbers = NDArray[np.float64]
Role = Literal["in", "out", "all"]

POINTWISE = frozenset((
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max",
    "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Sign",
    "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where",
))  # fmt: skip
"""Ops that work element by element."""

_ATTRIBUTES = frozenset((
    "auto_pad", "dilations", "kernel_shape", "pads", "strides", "transA", "transB", "perm",
))  # fmt: skip
"""Attributes that change what a kernel costs; `group` shows in the shape of the weight."""


@dataclass(frozen=True)
class Work:
    """What a kernel has to do, each of shape ``(k,)``: multiply-accumulates, and bytes moved."""

    macs: Numbers
    inputs: Numbers
    outputs: Numbers
    weights: Numbers


@dataclass(frozen=True, eq=False)
class NodeKernel(Kernel):
    """A kernel and its nodes.  Equal signatures cost the same at equal lengths."""

    nodes: tuple[ir.Node, ...]
    signature: str
    kind: str
    """Op type, window and whether it is grouped: kernels of one kind follow one law."""
    _index: Mapping[tuple[ir.Value, int], int] = field(repr=False)
    _symbols: Mapping[str, int] = field(repr=False)

    def sizes(self, lengths: Lengths, step: int = 1) -> Size:
        """Return the size of every axis at ``lengths`` of shape ``(k, axes)``, each rounded up.

        Where a plan may shorten an axis, its size is an array of shape ``(k,)``.
        """
        rounded = -(-lengths // step) * step
        columns = {axis: rounded[:, k].astype(np.float64) for k, axis in enumerate(self.axes)}

        def size(value: ir.Value, axis: int) -> Any:
            number = self._index.get((value, axis))
            return columns[number] if number is not None else self._fixed(value, axis)

        return size

    def work(self, lengths: Lengths, step: int = 1) -> Work:
        """Return the work at ``lengths``, shape ``(k, axes)``, each rounded up to ``step``."""
        size = self.sizes(lengths, step)

        def total(values: Iterator[ir.Value]) -> Numbers:
            return np.zeros(len(lengths)) + sum(_bytes(value, size) for value in values)

        return Work(
            np.zeros(len(lengths)) + sum(rule_for(node).macs(node, size) for node in self.nodes),
            total(value for value in self.inputs if not value.is_initializer()),
            total(iter(self.outputs)),
            total(value for value in self.inputs if value.is_initializer()),
        )

    def columns(self, role: Role) -> list[int]:
        """Return which of ``axes`` stand in the data read (`in`), in the results (`out`)."""
        read = [value for value in self.inputs if not value.is_initializer()]
        values = {"in": read, "out": self.outputs, "all": [*read, *self.outputs]}[role]
        found = {
            self._index.get((value, k))
            for value in values
            if value.shape is not None
            for k in range(len(value.shape))
        }
        return [column for column, axis in enumerate(self.axes) if axis in found]

    @property
    def inputs(self) -> list[ir.Value]:
        """What the kernel reads from outside, weights too."""
        own = {value for node in self.nodes for value in node.outputs}
        read = (value for node in self.nodes for value in node.inputs if value is not None)
        return [value for value in dict.fromkeys(read) if value not in own]

    @property
    def outputs(self) -> list[ir.Value]:
        """What others read of the kernel."""
        own = set(self.nodes)
        return [
            value
            for node in self.nodes
            for value in node.outputs
            if value.is_graph_output() or any(use.node not in own for use in value.uses())
        ]

    def _fixed(self, value: ir.Value, axis: int) -> int:
        assert value.shape is not None
        dim = value.shape[axis]
        return dim if isinstance(dim, int) else self._symbols.get(dim.value or "", 1)


def _bytes(value: ir.Value, size: Size) -> float:
    """Return the bytes of a value; one number per row where ``size`` gives arrays."""
    if value.shape is None or value.dtype is None:
        return 0.0
    return value.dtype.itemsize * prod(size(value, k) for k in range(len(value.shape)))


def split(channels: Channels, symbols: Mapping[str, int]) -> list[NodeKernel]:
    """Return the kernels of a graph, in the order of their first nodes."""
    _, _, index = channels.unique_axes
    owner: dict[ir.Node, int] = {}
    members: list[list[ir.Node]] = []
    for node in channels.graph:
        home = _home(node, owner)
        if home is None:
            home = len(members)
            members.append([])
        owner[node] = home
        members[home].append(node)
    return [_kernel(nodes, index, symbols) for nodes in members]


def _home(node: ir.Node, owner: Mapping[ir.Node, int]) -> int | None:
    """Return the kernel that a node belongs to: the last of those that made what it reads."""
    if node.op_type not in POINTWISE or node.domain not in ("", "ai.onnx"):
        return None
    makers = {
        owner[maker]
        for value in node.inputs
        if value is not None and (maker := value.producer()) in owner and maker is not None
    }
    return max(makers, default=None)


def _kernel(
    nodes: list[ir.Node],
    index: Mapping[tuple[ir.Value, int], int],
    symbols: Mapping[str, int],
) -> NodeKernel:
    values = dict.fromkeys(
        value for node in nodes for value in (*node.inputs, *node.outputs) if value is not None
    )
    found = {
        (value, k): index[value, k]
        for value in values
        if value.shape is not None
        for k in range(len(value.shape))
        if (value, k) in index
    }
    axes = dict.fromkeys(found.values())
    places = {axis: f"${place}" for place, axis in enumerate(axes)}
    marks = {key: places[axis] for key, axis in found.items()}
    signature = "; ".join(_signature(node, marks, symbols) for node in nodes)
    name, kind = nodes[0].name or "", _kind(nodes[0])
    return NodeKernel(name, tuple(axes), tuple(nodes), signature, kind, index, symbols)


def _kind(node: ir.Node) -> str:
    weight = node.inputs[1] if node.op_type in ("Conv", "ConvTranspose") else None
    if weight is None or weight.shape is None:
        return node.op_type
    window = "x".join(str(dim) for dim in weight.shape[2:])
    grouped = " grouped" if node.attributes.get_int("group", 1) > 1 else ""
    return f"{node.op_type} {window}{grouped}"


def _signature(
    node: ir.Node, marks: Mapping[tuple[ir.Value, int], str], symbols: Mapping[str, int]
) -> str:
    """Return op, attributes and shapes, with a mark for each axis that plans may shorten."""

    def shape(value: ir.Value | None) -> str:
        if value is None or value.shape is None:
            return "-"
        dims = [
            marks.get((value, k))
            or str(dim if isinstance(dim, int) else symbols.get(dim.value or "", 1))
            for k, dim in enumerate(value.shape)
        ]
        kind = "" if value.dtype is None else value.dtype.name.lower()
        return f"{kind}[{','.join(dims)}]"

    attributes = ",".join(
        f"{name}={attribute.value}"
        for name, attribute in sorted(node.attributes.items())
        if name in _ATTRIBUTES
    )
    ends = " ".join(map(shape, node.inputs)) + " -> " + " ".join(map(shape, node.outputs))
    return f"{node.op_type}({attributes}) {ends}"

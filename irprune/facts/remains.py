"""What remains of a graph when a plan keeps no position of some tensor axes.

A tensor with such an axis is *gone*. A node that sums over it computes a constant: its bias, or
zero. Constants go on through element-wise ops, normalisations by constants, moves, and sums that
see them at every position (`facts/`). Where they meet something that is alive, they stand as an
operand of one number per channel; what is computed for them alone is needed no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import Facts
from irprune.facts.flow import Flow, dtype_of
from irprune.ops import bodies, rule_for
from irprune.ops.elementwise import Elementwise
from irprune.plan import Plan, count, raised
from irprune.queries import Dim, describe, dims_of

_BIASED = ("Conv", "ConvTranspose", "Gemm")
_PLAIN_SUMS = ("Einsum", "MatMul", "ReduceSum")
_FILLED = ("CastLike", "Expand")
"""Ops of which exporters make a bias of zeros; their other inputs give a type and a shape."""

_BROADCASTS_SINCE = 8
"""From this opset on, every element-wise op broadcasts its operands."""

Kind = Literal["term", "operand", "part"]


@dataclass(frozen=True)
class Cut:
    """Input number `index` of a node that is alive is a constant now, or gone.

    A *term* is added to what is alive or subtracted from it, an *operand* meets it in another
    element-wise op, a *part* is concatenated with it and gone.
    """

    node: ir.Node
    index: int
    kind: Kind


class Remains:
    """Which values of a graph are constants and which nodes are alive when a plan is followed."""

    def __init__(self, graph: ir.Graph, plan: Plan) -> None:
        self._plan = plan
        self.gone = frozenset(_gone(graph, plan))
        """Values that have an axis without positions."""
        self.constants: dict[ir.Value, Facts] = {}
        """Values that are constants now, one number per position of their tracked axes."""
        self.cuts: list[Cut] = []
        self.obstacles: list[str] = []
        """Why the graph cannot be without what is gone; none where it can."""
        self._flow = Flow(graph, ())
        for node in graph:
            self._follow(node)
        for value in graph.outputs:
            if self._lost(value):
                self.obstacles.append(f"output {value.name} would not depend on the input")
        alive = self._alive(graph)
        for node in graph:
            if node in alive:
                self._cut(node)

    def _lost(self, value: ir.Value | None) -> bool:
        return value in self.gone or value in self.constants

    # Forwards: which values are constants

    def _follow(self, node: ir.Node) -> None:
        """Note the outputs of a node that are constants now."""
        if node.op_type in _FILLED and not self._lost(node.inputs[0]):
            self._flow.learn(node)
        if not any(self._lost(value) for value in node.inputs):
            return
        outputs = [v for v in node.outputs if v.name and v not in self.gone]
        if not outputs or any(v is not None and v.shape is None for v in node.inputs):
            return
        if not any(value in self.gone for value in node.inputs):
            self._flow.learn(node)
        elif (bias := self._empty_sum(node)) is not None:
            self._flow.assume(outputs[0], bias)
        elif node.op_type == "Concat" and all(map(self._lost, node.inputs)):
            for value in node.inputs:
                if value is not None and value in self.gone:
                    self._flow.assume(value, _zero(value))
            self._flow.learn(node)
        for value in outputs:
            if value.shape is None:
                continue
            facts = self._without_dropped(value, self._flow.of(value))
            if facts.known.all():
                self.constants[value] = facts
                self._flow.assume(value, facts)

    def _without_dropped(self, value: ir.Value, facts: Facts) -> Facts:
        """Return the facts with zero at the positions that the plan drops: sums skip them."""
        for axis, mask in self._plan.axes.get(value.name or "", {}).items():
            kept = raised(mask, len(facts.shape), axis)
            facts = facts.stretched({k: n for k, n in enumerate(kept.shape) if n > 1 or k == axis})
            const = np.where(kept, facts.const, np.zeros((), facts.const.dtype))
            facts = Facts.make(facts.known | ~kept, const, facts.number)
        return facts

    def _empty_sum(self, node: ir.Node) -> Facts | None:
        """Return what a node adds to its sum over no position; None where it sums over some."""
        summed = [(node.inputs[c.data], c.axis) for c in rule_for(node).contractions(node)]
        if not any(value in self.gone for value, _ in summed):
            return None
        output = node.outputs[0]
        bias = node.inputs[2] if node.op_type in _BIASED and len(node.inputs) > 2 else None
        if bias is None:
            return _zero(output) if node.op_type in (*_BIASED, *_PLAIN_SUMS) else None
        rank, facts = len(self._flow.dims(output)), self._flow.of(bias)
        if not facts.known.all():
            return None
        if node.op_type == "Gemm":
            scaled = facts.const.astype(np.float64) * node.attributes.get_float("beta", 1.0)
            return Facts.of_array(scaled.astype(dtype_of(output))).raised(rank)
        return facts.reshaped([1, -1] + [1] * (rank - 2))

    # Backwards: which nodes are alive

    def _alive(self, graph: ir.Graph) -> set[ir.Node]:
        """Return the nodes that graph outputs need otherwise than through what is lost."""
        found: set[ir.Node] = set()
        stack = [value.producer() for value in graph.outputs if not self._lost(value)]
        while stack:
            node = stack.pop()
            if node is None or node in found or node.graph is not graph:
                continue
            found.add(node)
            stack += [value.producer() for value in self._read(node) if not self._lost(value)]
        return found

    def _read(self, node: ir.Node) -> Iterator[ir.Value]:
        """Iterate over what a node reads, in its bodies too."""
        yield from (value for value in node.inputs if value is not None)
        for body in bodies(node):
            for inner in body.all_nodes():
                yield from (value for value in inner.inputs if value is not None)

    def _cut(self, node: ir.Node) -> None:
        """Note the inputs of a living node that are lost, or why it cannot be without them."""
        lost = [k for k, value in enumerate(node.inputs) if self._lost(value)]
        if not lost:
            if any(map(self._lost, self._read(node))):
                self.obstacles.append(f"a body of {describe(node)} reads what would be constant")
            return
        gone = [k for k in lost if node.inputs[k] in self.gone]
        kind: Kind
        if node.op_type == "Concat" and gone == lost:
            kind = "part"
        elif gone or not self._takes_constants(node, lost):
            self.obstacles.append(
                f"{describe(node)} would read what became constant and cannot take it in"
            )
            return
        else:
            terms = node.op_type in ("Add", "Sum") or (node.op_type == "Sub" and lost == [1])
            kind = "term" if terms else "operand"
        self.cuts += [Cut(node, k, kind) for k in lost]

    def _takes_constants(self, node: ir.Node, lost: list[int]) -> bool:
        """Return whether inputs may shrink to one number per channel: others give the shape."""
        usual = node.op_type in Elementwise.ops and node.domain in ("", "ai.onnx")
        if not usual or "axis" in node.attributes or (node.op_type == "PRelu" and 0 in lost):
            return False
        zero = all(not self.constants[v].const.any() for v in node.inputs if v in self.constants)
        if self._flow.opset < _BROADCASTS_SINCE and not (node.op_type in ("Add", "Sum") and zero):
            return False
        rest = [v for k, v in enumerate(node.inputs) if v is not None and k not in lost]
        shape = dims_of(node.outputs[0])
        return any(_fills(dims_of(value), shape) for value in rest)


def _gone(graph: ir.Graph, plan: Plan) -> Iterator[ir.Value]:
    """Iterate over the values of which a plan keeps no position of some axis."""
    for value in (*graph.initializers.values(), *(v for node in graph for v in node.outputs)):
        masks = plan.axes.get(value.name or "", {})
        if not all(count(kept) for kept in masks.values()):
            yield value


def _zero(value: ir.Value) -> Facts:
    """Return the facts of a value that is zero everywhere."""
    dims = dims_of(value)
    assert dims is not None
    return Facts.of_array(np.zeros((1,) * len(dims), dtype_of(value)))


def _fills(dims: list[Dim] | None, shape: list[Dim] | None) -> bool:
    """Return whether an operand has the shape of the result.

    Dynamic axes are taken not to be stretched.
    """
    if dims is None or shape is None or len(dims) != len(shape):
        return False
    return all(
        a == b or not (isinstance(a, int) or isinstance(b, int))
        for a, b in zip(dims, shape, strict=True)
    )


__all__ = ["Cut", "Remains"]

"""Sequences whose members are known: the members themselves stand instead.

torch.onnx writes `chunk` and `split` as SplitToSequence and SequenceAt, which hides that they are
one Split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from irprune.names import Names
from irprune.ops.rule import opset_of
from irprune.queries import constant_of, dims_of
from irprune.tidy import add_initializer, bypass, take_over

_LISTS = 13
"""The first opset that takes sizes and axes as inputs."""
_MOST = 1024
"""Parts of one split, at most: a length is a number that any file may name."""


def unsequence(graph: ir.Graph) -> int:
    """Put members in the place of what takes them from a sequence; return how many nodes went."""
    folder = _Folder(graph, Names(graph))
    return sum(folder.fold(node) for node in list(graph) if not node.domain)


@dataclass
class _Folder:
    graph: ir.Graph
    names: Names
    known: dict[ir.Value, Sequence[ir.Value]] = field(default_factory=dict)
    """Members of the sequences met so far."""

    def fold(self, node: ir.Node) -> bool:
        """Replace a node that reads a sequence of known members; return whether it was one."""
        if node.op_type == "SequenceAt":
            return self._at(node)
        if node.op_type == "ConcatFromSequence" and not node.attributes.get_int("new_axis", 0):
            return self._concatenate(node)
        return False

    def _at(self, node: ir.Node) -> bool:
        members, position = self._members(node.inputs[0]), constant_of(node.inputs[1])
        if members is None or position is None or position.size != 1:
            return False
        place = int(position.item())
        if not -len(members) <= place < len(members):
            return False
        copy = ir.node("Identity", [members[place]], name=node.name)
        self._replace(node, copy)
        bypass(copy)
        return True

    def _concatenate(self, node: ir.Node) -> bool:
        members = self._members(node.inputs[0])
        if members is None:
            return False
        axis = {"axis": node.attributes["axis"].as_int()}
        self._replace(node, ir.node("Concat", members, axis, name=node.name))
        return True

    def _replace(self, node: ir.Node, new: ir.Node) -> None:
        former, output = node.outputs[0], new.outputs[0]
        output.name = self.names.value(f"{former.name}_member")
        output.type, output.shape = former.type, former.shape
        self.graph.insert_before(node, new)
        take_over(output, former)
        self.graph.remove(node, safe=True)

    def _members(self, sequence: ir.Value | None) -> Sequence[ir.Value] | None:
        """Return the tensors of a sequence, None where their number is not known."""
        node = None if sequence is None else sequence.producer()
        if sequence is None or node is None or node.domain:
            return None
        if node.op_type == "SequenceConstruct":
            return [value for value in node.inputs if value is not None]
        if node.op_type == "SplitToSequence" and sequence not in self.known:
            sizes = _sizes(node)
            if sizes is not None:
                self.known[sequence] = self._split(node, sizes)
        return self.known.get(sequence)

    def _split(self, node: ir.Node, sizes: list[int]) -> Sequence[ir.Value]:
        """Return the outputs of a new Split before a SplitToSequence."""
        source, axis = node.inputs[0], node.attributes.get_int("axis", 0)
        assert source is not None and source.shape is not None
        before, after = source.shape[:axis], source.shape[axis:][1:]
        parts = self._node(node, "Split", source, sizes, len(sizes), axis=axis)
        for size, part in zip(sizes, parts, strict=True):
            part.shape = ir.Shape([*before, size, *after])
        if _asked(node) is None and not node.attributes.get_int("keepdims", 1):
            parts = [self._node(node, "Squeeze", part, [axis], 1)[0] for part in parts]
            for part in parts:
                part.shape = ir.Shape([*before, *after])
        return parts

    def _node(
        self, before: ir.Node, op: str, data: ir.Value, numbers: list[int], count: int, **more: Any
    ) -> Sequence[ir.Value]:
        """Return the outputs of a new node whose numbers are an attribute or an input."""
        inputs = [data]
        if opset_of(before) >= _LISTS:
            name = self.names.value(f"{before.name}_numbers")
            inputs.append(add_initializer(self.graph, name, np.array(numbers, np.int64)))
        else:
            more |= {{"Split": "split", "Squeeze": "axes"}[op]: numbers}
        name = self.names.node(f"{before.name}_{op}")
        node = ir.node(op, inputs, more, num_outputs=count, name=name)
        for output in node.outputs:
            output.name, output.type = self.names.value(name), data.type
        self.graph.insert_before(before, node)
        return node.outputs


def _sizes(node: ir.Node) -> list[int] | None:
    """Return how long the parts are that a SplitToSequence makes, None where that is not known."""
    source, axis, asked = node.inputs[0], node.attributes.get_int("axis", 0), _asked(node)
    dims = (None if source is None else dims_of(source)) or []
    sizes = np.array(1) if asked is None else constant_of(asked)
    known = sizes is not None and bool((sizes >= 1).all())
    if sizes is None or not known or not -len(dims) <= axis < len(dims):
        return None
    if sizes.ndim:
        return [int(size) for size in sizes]
    length, step = dims[axis], int(sizes)
    if not isinstance(length, int) or length > step * _MOST:
        return None
    return [min(step, length - start) for start in range(0, length, step)]


def _asked(node: ir.Node) -> ir.Value | None:
    """Return the input of a SplitToSequence that says how long the parts are."""
    return node.inputs[1] if len(node.inputs) > 1 else None

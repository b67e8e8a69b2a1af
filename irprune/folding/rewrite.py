"""Fold shape arithmetic: what is known becomes a constant, what is not reads dynamic axes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import onnx_ir as ir

from irprune.folding.learning import Knowledge, size_of
from irprune.folding.values import Element, Length
from irprune.names import Names
from irprune.tidy import add_initializer, is_used


class ShapeFolder:
    """Folds the shape arithmetic of the main graph.

    The graph is rewritten against its order, so that what nobody reads any more goes on the way.

    Args:
        graph: the graph, its shapes inferred, its nodes and values named.
        knowledge: what was learnt about it.
    """

    def __init__(self, graph: ir.Graph, knowledge: Knowledge) -> None:
        self.graph = graph
        self.knowledge = knowledge
        self.counts: Counter[str] = Counter()
        """Constants made (`folded`), Reshape targets settled, lengths rewritten, nodes removed."""
        self._names = Names(graph)

    def run(self) -> None:
        """Fold in place, once; `counts` says what was done."""
        for node in reversed(list(self.graph)):
            if is_used(node):
                self._rewrite(node)
            if not is_used(node):
                self.graph.remove(node, safe=True)
                self.counts["removed"] += 1

    def _rewrite(self, node: ir.Node) -> None:
        if node.op_type == "Reshape" and not node.domain:
            self._settle(node)
        for value in node.outputs:
            if value.is_graph_output() or not value.uses():
                continue
            array = self.knowledge.constant(value)
            if array is not None:
                name = value.name or ""
                value.name = self._names.value(f"{name}_folded")
                value.replace_all_uses_with(add_initializer(self.graph, name, array))
                self.counts["folded"] += 1
            elif value.dtype == ir.DataType.INT64 and not self._canonical(value):
                self._compose(value)
                self.counts["lengths"] += 1

    def _settle(self, node: ir.Node) -> None:
        """Give a Reshape a constant target where its data leave no doubt."""
        target, old = self.knowledge.reshape_target(node), node.inputs[1]
        if target is None or old is None:
            return
        if old.is_initializer() and self.knowledge.partials[old].tolist() == target:
            return
        if 0 in target:
            node.attributes.pop("allowzero", None)
        node.replace_input_with(1, self._numbers(f"{node.name}_shape", target))
        self.counts["reshapes"] += 1

    def _canonical(self, value: ir.Value) -> bool:
        """Return whether a value reads nothing but constants and the lengths of dynamic axes."""
        partial, producer = self.knowledge.partials.get(value), value.producer()
        if partial is None or producer is None or all(_fixed_gather(*u) for u in value.uses()):
            return True
        elements = partial.ravel().tolist()
        source = producer.inputs[0]
        match producer.op_type:
            case "Shape":
                return _all_lengths(elements)
            case "Gather":
                above = None if source is None else source.producer()
                of_shape = above is not None and above.op_type == "Shape"
                gathered = of_shape and _all_lengths(elements)
                return _fixed_gather(producer, 0) and (gathered or _all_of(source, elements))
            case "Concat":
                return all(v is not None and self._canonical(v) for v in producer.inputs)
            case "Reshape":
                flat = _all_of(source, elements) or partial.ndim > 1
                return flat and source is not None and self._canonical(source)
        return False

    def _compose(self, value: ir.Value) -> None:
        """Compute a value anew: constants, lengths of dynamic axes, elements of tensors."""
        partial, node, stem = self.knowledge.partials[value], value.producer(), value.name or ""
        assert node is not None
        made: list[ir.Node] = []
        runs = _runs(partial.ravel().tolist())
        parts = [self._part(stem, run, partial.ndim == 0, made) for run in runs]
        result = parts[0]
        if len(parts) > 1:
            result = self._node(made, stem, "Concat", parts, [partial.size], axis=0)
        if partial.ndim > 1:
            shape = self._numbers(f"{stem}_shape", list(partial.shape))
            result = self._node(made, stem, "Reshape", [result, shape], partial.shape)
        self.graph.insert_after(node, made)
        for use in list(value.uses()):
            if use.node not in made:
                use.node.replace_input_with(use.idx, result)

    def _part(self, stem: str, run: list[Any], scalar: bool, made: list[ir.Node]) -> ir.Value:
        """Return consecutive elements of one origin as a tensor of rank 1, or 0 if `scalar`."""
        first = run[0]
        if isinstance(first, Length):
            rank = len(first.value.shape or ())
            source = self._node(made, stem, "Shape", [first.value], [rank])
            positions = [e.axis for e in run]
        elif isinstance(first, Element):
            source, positions = first.value, [e.position for e in run]
        else:
            return self._numbers(f"{stem}_numbers", run)
        if not source.shape:
            one = self._numbers(f"{stem}_shape", [1])
            return source if scalar else self._node(made, stem, "Reshape", [source, one], [1])
        if not scalar and positions == list(range(size_of(source) or 0)):
            return source
        where = self._numbers(f"{stem}_positions", positions[0] if scalar else positions)
        shape = [] if scalar else [len(run)]
        return self._node(made, stem, "Gather", [source, where], shape, axis=0)

    def _node(
        self,
        made: list[ir.Node],
        stem: str,
        op: str,
        inputs: list[ir.Value],
        shape: Sequence[int],
        **attributes: int,
    ) -> ir.Value:
        """Append a node to `made`; return its int64 output, of the given shape."""
        node = ir.node(op, inputs, attributes, name=self._names.node(f"{stem}_{op}"))
        output = node.outputs[0]
        output.name = self._names.value(f"{stem}_{op}")
        output.dtype, output.shape = ir.DataType.INT64, ir.Shape(shape)
        made.append(node)
        return output

    def _numbers(self, stem: str, numbers: int | Sequence[int]) -> ir.Value:
        name = self._names.value(stem)
        return add_initializer(self.graph, name, np.array(numbers, np.int64))


def _runs(elements: Sequence[Any]) -> list[list[Any]]:
    """Cut elements into runs: numbers, lengths of one tensor, or elements of one tensor.

    A tensor of rank 0 has one element, so each of its is a run.
    """
    runs = [list(run) for _, run in groupby(elements, _origin)]
    return [part for run in runs for part in ([[e] for e in run] if _alone(run[0]) else [run])]


def _alone(element: Any) -> bool:
    return isinstance(element, Element) and not element.value.shape


def _origin(element: Any) -> object:
    return None if isinstance(element, int) else (type(element), element.value)


def _all_lengths(elements: Sequence[Any]) -> bool:
    return all(isinstance(element, Length) for element in elements)


def _all_of(source: ir.Value | None, elements: Sequence[Any]) -> bool:
    return all(isinstance(e, Element) and e.value is source for e in elements)


def _fixed_gather(node: ir.Node, index: int) -> bool:
    """Return whether the node selects constant positions of its input `index`."""
    positions = node.inputs[1] if node.op_type == "Gather" and index == 0 else None
    return positions is not None and positions.is_initializer()

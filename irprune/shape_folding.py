"""Fold shape arithmetic: what is known becomes a constant, what is not reads dynamic axes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irprune.names import Names
from irprune.shape_learning import Knowledge
from irprune.shape_values import Element, Length, Partial
from irprune.tidy import add_initializer, is_used


def fold_shapes(model: ir.Model, parameters: frozenset[ir.Value]) -> ShapeFolder:
    """Fold the shape arithmetic of the main graph in place, once.

    Args:
        model: the model, its shapes inferred, its nodes and values named.
        parameters: floating-point weights, which are folded into nothing else.

    Raises:
        IrpruneError: the shapes of the model contradict each other.
    """
    folder = ShapeFolder(model.graph, Knowledge(model, parameters))
    folder.run()
    return folder


class ShapeFolder:
    """Rewrites a graph against its order, so that what nobody reads any more goes on the way."""

    def __init__(self, graph: ir.Graph, knowledge: Knowledge) -> None:
        self.graph = graph
        self.knowledge = knowledge
        self.counts: Counter[str] = Counter()
        """Constants made (`folded`), Reshape targets settled, lengths rewritten, nodes dropped."""
        self._names = Names(graph)

    def run(self) -> None:
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
        if partial is None or producer is None:
            return True
        elements = partial.ravel().tolist()
        source = producer.inputs[0]
        match producer.op_type:
            case "Shape":
                return _all_lengths(elements) or all(_fixed_gather(*use) for use in value.uses())
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
        partial, node = self.knowledge.partials[value], value.producer()
        assert node is not None
        elements = partial.ravel().tolist()
        made: list[ir.Node] = []
        if partial.ndim == 0:
            result = self._scalar(value.name or "", elements[0], made)
        else:
            parts = [self._part(value.name or "", run, made) for run in _runs(elements)]
            result = parts[0]
            if len(parts) > 1:
                result = self._node(made, "Concat", parts, value, [len(elements)], axis=0)
        if partial.ndim > 1:
            shape = self._numbers(f"{value.name}_shape", list(partial.shape))
            result = self._node(made, "Reshape", [result, shape], value, partial.shape)
        self.graph.insert_after(node, made)
        for use in list(value.uses()):
            if use.node not in made:
                use.node.replace_input_with(use.idx, result)

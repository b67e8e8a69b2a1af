"""Unique names for the nodes and values of a graph, its nested bodies included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir


def graphs_of(graph: ir.Graph) -> Iterator[ir.Graph]:
    """Yield the graph and every body nested in it, outer ones first."""
    yield graph
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from graphs_of(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    yield from graphs_of(body)


class Names:
    """The names in use in a graph and its bodies; gives out new ones."""

    def __init__(self, graph: ir.Graph) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        self._next: Counter[str] = Counter()
        for part in graphs_of(graph):
            for value in (*part.inputs, *part.initializers.values(), *part.outputs):
                self._values.add(value.name or "")
            for node in part:
                self._nodes.add(node.name or "")
                self._values.update(value.name or "" for value in node.outputs)

    def value(self, stem: str) -> str:
        """Return `stem`, or `stem_2`, `stem_3`, ..., as the name of a new value."""
        return self._fresh(stem, self._values)

    def node(self, stem: str) -> str:
        """Return `stem`, or `stem_2`, `stem_3`, ..., as the name of a new node."""
        return self._fresh(stem, self._nodes)

    def _fresh(self, stem: str, taken: set[str]) -> str:
        name = stem
        while name in taken:
            self._next[stem] += 1
            name = f"{stem}_{self._next[stem] + 1}"
        taken.add(name)
        return name


def name_all(graph: ir.Graph) -> int:
    """Give every node and value a unique name; return how many got a new one.

    What has a unique name keeps it, and of several equal ones the first. Graph inputs and outputs
    keep theirs in any case. Optional outputs that a node omits (their name is empty) stay unnamed.
    """
    names = Names(graph)
    parts = list(graphs_of(graph))
    nodes = [node for part in parts for node in part]
    before: set[str] = set()
    count = 0
    for index, node in enumerate(nodes):
        if not node.name or node.name in before:
            node.name = names.node(node.name or f"{node.op_type}_{index}")
            count += 1
        before.add(node.name)
    fixed = {
        v for part in parts for v in (*part.inputs, *part.outputs, *part.initializers.values())
    }
    used = {value.name for value in fixed}
    for node in nodes:
        for index, value in enumerate(node.outputs):
            omitted = value.name == "" and not value.uses()
            if value in fixed or omitted:
                continue
            if not value.name or value.name in used:
                value.name = names.value(value.name or f"{node.name}_output{index}")
                count += 1
            used.add(value.name)
    return count

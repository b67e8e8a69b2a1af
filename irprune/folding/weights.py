"""Weights that the graph computes from other weights: standardised, normalised, low-rank sums.

Channels can be sliced from a tensor, not from what computes it, so such a weight becomes an
initializer; one that trains where a parameter went into it. What only moves a weight (a Transpose
before a MatMul) stays, and with it the weight's name; so does what dequantises one, or its integers
would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from irprune.folding.constants import evaluate
from irprune.names import Names
from irprune.ops import bodies, rule_for
from irprune.queries import constant_of, describe, dims_of
from irprune.roles import inherit, origins
from irprune.tidy import add_initializer

_MOVES = frozenset(
    (
        *("Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather"),
        *("Identity", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose"),
        "Unsqueeze",
    )
)
_CONVOLUTIONS = frozenset(("Conv", "ConvTranspose"))
_KEPT = frozenset(
    (
        *("Bernoulli", "DequantizeLinear", "DynamicQuantizeLinear", "Multinomial"),
        *("QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform"),
        "RandomUniformLike",
    )
)


def fold_weights(graph: ir.Graph, failures: dict[str, str]) -> int:
    """Make computed weights of products initializers, in place; return how many.

    `failures` takes the nodes that the reference implementation cannot compute, and why.
    """
    fixed = _fixed(graph)
    names = Names(graph)
    count = 0
    for node in list(graph):
        if node in fixed:  # a product of parameters alone: each of them keeps its name
            continue
        for value in _weights(node):
            cone = _cone(value, fixed)
            if cone is None or all(n.op_type in _MOVES for n in cone):
                continue
            array = _computed(value, cone, graph.opset_imports, failures)
            if array is not None:
                name = value.name or ""
                value.name = names.value(f"{name}_folded")
                made = add_initializer(graph, name, array)
                inherit(made, origins([value]))
                value.replace_all_uses_with(made)
                count += 1
    return count


def _fixed(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that depend on initializers alone."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.domain or node.op_type in _KEPT or bodies(node):
            continue
        inputs = (value for value in node.inputs if value is not None)
        if all(v.is_initializer() or v.producer() in found for v in inputs):
            found.add(node)
    return found


def _weights(node: ir.Node) -> list[ir.Value]:
    """Return the floating-point values, not yet initializers, that a product takes as weight."""
    if any(v is None or v.shape is None for v in (*node.inputs[:2], *node.outputs)):
        return []
    places = {k for c in rule_for(node).contractions(node) for k in (c.data, c.weight or 0)}
    places |= {1} if node.op_type in _CONVOLUTIONS else set()  # a depthwise one sums no channels
    values = (node.inputs[k] for k in sorted(places))
    return [
        value
        for value in dict.fromkeys(values)
        if value is not None
        and not value.is_initializer()
        and not value.is_graph_output()
        and value.dtype is not None
        and value.dtype.is_floating_point()
    ]


def _cone(value: ir.Value, fixed: set[ir.Node]) -> list[ir.Node] | None:
    """Return the nodes that compute a value, in order; None where it depends on an input."""
    order: dict[ir.Node, None] = {}
    stack = [(value.producer(), False)]
    while stack:
        node, done = stack.pop()
        if node is None or node in order:
            continue
        if node not in fixed:
            return None
        if done:
            order[node] = None
            continue
        stack.append((node, True))
        inputs = (v.producer() for v in node.inputs if v is not None and not v.is_initializer())
        stack += [(before, False) for before in inputs]
    return list(order)


def _computed(
    value: ir.Value,
    cone: list[ir.Node],
    opsets: Mapping[str, int],
    failures: dict[str, str],
) -> np.ndarray | None:
    known: dict[str, np.ndarray] = {}
    for node in cone:
        for given in node.inputs:
            array = constant_of(given)
            if given is not None and array is not None:
                known[given.name or ""] = array
        inputs = {v.name or "": known[v.name or ""] for v in node.inputs if v is not None}
        try:
            results = evaluate(node, inputs, opsets)
        except Exception as error:  # whatever the reference implementation does not cover
            failures[describe(node)] = f"{type(error).__name__}: {error}"
            return None
        known |= {v.name or "": r for v, r in zip(node.outputs, results, strict=False) if v.name}
    array = known[value.name or ""]
    assert value.dtype is not None
    if array.dtype != value.dtype.numpy() or list(array.shape) != dims_of(value):
        failures[describe(cone[-1])] = f"got {array.dtype}{list(array.shape)}"
        return None
    return array

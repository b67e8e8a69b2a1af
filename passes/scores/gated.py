"""Gated activations: x times a function of x, such as x·relu6(x + 3) / 6, and y·f(x)."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from irprune.ops import rule_for
from irprune.ops.elementwise import Elementwise, PassThrough
from irprune.queries import dims_of

_LAYOUT = frozenset(("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Transpose"))


def activation_of(gate: ir.Value) -> ir.Value:
    """Return the activation that the output of a non-linearity gates, or else that output.

    It is the product of a function of the output with a function of what the output is made of,
    all of them element-wise, and with the constants that scale this product alone. For a gate made
    from other values see `scaled_by`.
    """
    before = _before(gate)
    after, frontier = {gate}, [gate]
    while frontier:
        for node in frontier.pop().consumers():
            others = [v for v in _inputs(node) if v not in after and not _constant(v)]
            if not _elementwise(node) or not all(_made_of(v, before) for v in others):
                continue
            output = node.outputs[0]
            if node.op_type == "Mul" and others:
                return _scaled(output)
            if output not in after:
                after.add(output)
                frontier.append(output)
    return gate


def scaled_by(gate: ir.Value, carries: Callable[[ir.Value], bool]) -> list[ir.Value]:
    """Return the products of an activation with others that carry the same channels.

    Squeeze-and-excitation and gated linear units make such products: by itself the gate tells
    nothing of a channel that is 0 where it is multiplied. The activation itself where anything else
    reads it.

    Args:
        carries: whether a value carries these channels.
    """
    products: list[ir.Value] = []
    frontier = [gate]
    while frontier:
        value = frontier.pop()
        readers = value.consumers()
        if not readers or value.is_graph_output():
            return [gate]
        for node in readers:
            others = [v for v in node.inputs if v is not None and v is not value]
            if node.op_type in _LAYOUT and node.inputs[0] is value and carries(node.outputs[0]):
                frontier.append(node.outputs[0])
            elif (
                node.op_type == "Mul" and others and not _constant(others[0]) and carries(others[0])
            ):
                products.append(node.outputs[0])
            else:
                return [gate]
    return products


def _before(value: ir.Value) -> set[ir.Value]:
    """Return a value and what it is made of element-wise, back to what other ops give."""
    found, frontier = {value}, [value]
    while frontier:
        maker = frontier.pop().producer()
        if maker is not None and _elementwise(maker):
            fresh = set(_inputs(maker)) - found
            found |= fresh
            frontier.extend(fresh)
    return found


def _made_of(value: ir.Value, known: set[ir.Value]) -> bool:
    """Return whether a value is made element-wise from known ones and constants alone."""
    seen, frontier = {value}, [value]
    while frontier:
        value = frontier.pop()
        if value in known or value.is_initializer():
            continue
        maker = value.producer()
        if maker is None or not _elementwise(maker):
            return False
        fresh = set(_inputs(maker)) - seen
        seen |= fresh
        frontier.extend(fresh)
    return True


def _constant(value: ir.Value) -> bool:
    return _made_of(value, set())


def _scaled(value: ir.Value) -> ir.Value:
    """Return a value times the constant numbers by which it alone goes on."""
    while True:
        readers = value.consumers()
        if len(readers) != 1 or not _scales(readers[0], value):
            return value
        value = readers[0].outputs[0]


def _scales(node: ir.Node, value: ir.Value) -> bool:
    """Return whether a node multiplies a value by a constant number, or divides it by one."""
    if node.op_type not in ("Mul", "Div") or not _elementwise(node):
        return False
    left, right = _inputs(node)
    number = left if right is value and node.op_type == "Mul" else right
    return _constant(number) and all(length == 1 for length in dims_of(number) or ())


def _inputs(node: ir.Node) -> list[ir.Value]:
    """Return what a node computes with: Dropout and CastLike with the first input alone."""
    inputs = node.inputs[:1] if node.op_type in PassThrough.ops else node.inputs
    return [value for value in inputs if value is not None]


def _elementwise(node: ir.Node) -> bool:
    return isinstance(rule_for(node), Elementwise | PassThrough)

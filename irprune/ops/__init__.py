"""The op rules, one file per op family; an op without a rule pins what it touches.

Adding a family is one file with a ``RULES`` tuple, one line in ``FAMILIES`` and one test.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from irprune.ops.rule import Pin, Rule

if TYPE_CHECKING:
    import onnx_ir as ir

FAMILIES = (
    "along",
    "attention",
    "concat",
    "constant",
    "conv",
    "einsum",
    "elementwise",
    "expand",
    "gather",
    "indexing",
    "linear",
    "norm",
    "pad",
    "pool",
    "reduce",
    "region",
    "reshape",
    "resize",
    "slice",
    "softmax",
    "transpose",
)

_UNKNOWN = Pin("there is no rule for this op")
_UNSHAPED = Pin("a shape is unknown")
_BODY = Pin("control flow bodies are not analysed")


@cache
def rules() -> dict[str, Rule]:
    """Return the rule of every covered op type; two rules for one op are refused."""
    table: dict[str, Rule] = {}
    for family in FAMILIES:
        for rule in import_module(f"irprune.ops.{family}").RULES:
            for op in rule.ops:
                if op in table:
                    raise ValueError(f"two rules for {op}: {table[op]!r} and {rule!r}")
                table[op] = rule
    return table


def rule_for(node: ir.Node) -> Rule:
    """Return the rule of a node; a rule that pins where the node cannot be analysed."""
    if node.domain not in ("", "ai.onnx"):
        return _UNKNOWN
    if bodies(node):
        return _BODY
    if any(v is not None and v.shape is None for v in (*node.inputs, *node.outputs)):
        return _UNSHAPED
    return rules().get(node.op_type, _UNKNOWN)


def bodies(node: ir.Node) -> list[ir.Graph]:
    """Return the graphs that a control-flow node holds as attributes."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            found.append(attribute.as_graph())
        elif attribute.type.name == "GRAPHS":
            found.extend(attribute.as_graphs())
    return found

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
    "concat",
    "constant",
    "conv",
    "elementwise",
    "expand",
    "gather",
    "linear",
    "norm",
    "pad",
    "pool",
    "reduce",
    "reshape",
    "resize",
    "slice",
    "softmax",
    "transpose",
)

_PIN = Pin()


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
    """Return the rule of a node; ops of other domains and unknown ops get the pinning rule."""
    if node.domain not in ("", "ai.onnx"):
        return _PIN
    return rules().get(node.op_type, _PIN)

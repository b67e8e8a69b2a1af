"""What an ONNX node becomes in a lowered graph: one file per op family.

A rule takes the lowering under construction and a node, and returns the fx node that yields its
first output, or a tuple of them. Adding a family is one file with a ``RULES`` table, one line in
``FAMILIES`` and one test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import fx

    from irprune.backends.torch.lowering.lower import Lowering

    Rule = Callable[[Lowering, ir.Node], fx.Node | tuple[fx.Node, ...]]

DOMAIN = "irprune.torch"
"""Of the nodes that `fuse` puts for several; a family's ``FUSED`` table has their rules."""

FAMILIES = (
    "activation",
    "arithmetic",
    "attention",
    "conv",
    "indexing",
    "linear",
    "movement",
    "norm",
    "pool",
    "recurrent",
    "reduce",
    "resize",
)


@cache
def rules() -> Mapping[tuple[str, str], Rule]:
    """Return the rule of every covered op by domain and type; two rules for one are refused."""
    table: dict[tuple[str, str], Rule] = {}
    for family in FAMILIES:
        module = import_module(f"irprune.backends.torch.lowering.{family}")
        found = {("", op): rule for op, rule in module.RULES.items()}
        found |= {(DOMAIN, op): rule for op, rule in getattr(module, "FUSED", {}).items()}
        if twice := table.keys() & found.keys():
            raise ValueError(f"two lowerings of {sorted(twice)}")
        table |= found
    return table

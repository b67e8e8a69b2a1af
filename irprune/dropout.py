"""Dropout that a network trains with where it comes from: here it is an identity, and goes.

How many layers went is noted in the model's metadata, so that training can say it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_KEY = "irprune.dropout"


def left_out(model: ir.Model) -> int:
    """Return how many layers went."""
    noted = model.metadata_props.get(_KEY, "")
    return int(noted) if noted.isdecimal() else 0


def note(model: ir.Model, count: int) -> None:
    """Note that so many more layers went."""
    if count:
        model.metadata_props[_KEY] = str(left_out(model) + count)


def present(graph: ir.Graph) -> int:
    """Return how many are there."""
    return sum(node.op_type == "Dropout" and not node.domain for node in graph.all_nodes())

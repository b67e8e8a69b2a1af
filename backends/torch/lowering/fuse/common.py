"""What the fusions share: following values to their makers, and putting one node for several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irprune.backends.torch.lowering import DOMAIN
from irprune.queries import constant_of
from irprune.tidy import only_use, take_over


def maker(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """Return the node that makes a value, where it is of one of the kinds."""
    node = None if value is None else value.producer()
    return node if node is not None and not node.domain and node.op_type in kinds else None


def inner(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """Return the maker of a value that nothing else reads."""
    return maker(value, *kinds) if value is not None and only_use(value) else None


def number(value: ir.Value | None) -> float | None:
    """Return a constant of one element."""
    numbers = constant_of(value)
    return float(numbers.ravel()[0]) if numbers is not None and numbers.size == 1 else None


def near(value: ir.Value | None, expected: float) -> bool:
    """Return whether a value is a constant of one element, up to the rounding of float16."""
    found = number(value)
    return found is not None and bool(np.isclose(found, expected, rtol=1e-3))


def replace(
    last: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    name: str | None,
) -> None:
    """Put a node of our domain in the place of the last one of a pattern; the others die."""
    made = ir.node(kind, inputs, dict(attributes), domain=DOMAIN, name=name)
    (output,) = made.outputs
    former = last.outputs[0]
    output.type, output.shape, output.name = former.type, former.shape, former.name
    graph = last.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(last, made)
    take_over(output, former)
    graph.remove(last, safe=True)

"""What must agree exactly between a base and its pruned graph, before anything is run.

Each check yields the disagreements that it finds, in words; none means that it passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.plan import Plan, count, take
from irprune.proof.feeds import graph_inputs
from irprune.proof.reference import named_values
from irprune.queries import Dim, describe, dims_of

_INTEGERS = (ir.AttributeType.INT, ir.AttributeType.INTS)
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def interface(base: ir.Model, pruned: ir.Model) -> Iterator[str]:
    """Inputs and outputs have the same names, order, dtypes and stated dimensions."""
    ends = (
        ("inputs", graph_inputs(base.graph), graph_inputs(pruned.graph)),
        ("outputs", list(base.graph.outputs), list(pruned.graph.outputs)),
    )
    for what, left, right in ends:
        names = [v.name for v in left], [v.name for v in right]
        if names[0] != names[1]:
            yield f"the {what} are {names[1]}, were {names[0]}"
            continue
        for old, new in zip(left, right, strict=True):
            if old.dtype is not None and old.dtype != new.dtype:
                yield f"{old.name} is of type {new.dtype}, was {old.dtype}"
            dims, now = dims_of(old), dims_of(new)
            if dims is not None and not _same_dims(dims, now):
                yield f"{old.name} has shape {now}, had {dims}"


def _same_dims(old: list[Dim], new: list[Dim] | None) -> bool:
    """Whether each dimension that `old` states (an integer or a symbol) is the same in `new`."""
    return (
        new is not None
        and len(old) == len(new)
        and all(a is None or a == b for a, b in zip(old, new, strict=True))
    )


def shapes(base: ir.Model, pruned: ir.Model, plan: Plan) -> Iterator[str]:
    """Every named tensor of the pruned graph has the base's dtype and exactly the kept shape."""
    before = named_values(base.graph)
    for name, value in named_values(pruned.graph).items():
        if name not in before:
            continue
        old = before[name]
        if None not in (old.dtype, value.dtype) and old.dtype != value.dtype:
            yield f"{name} is of type {value.dtype}, was {old.dtype}"
        dims, now = dims_of(old), dims_of(value)
        if dims is None or now is None:
            continue
        masks = plan.axes.get(name, {})
        kept = [count(masks[k]) if k in masks else d for k, d in enumerate(dims)]
        known = [isinstance(d, int) and isinstance(n, int) for d, n in zip(kept, now, strict=False)]
        if len(kept) != len(now) or any(
            both and d != n for both, d, n in zip(known, kept, now, strict=True)
        ):
            yield f"{name} has shape {now}, the plan keeps {kept}"


def weights(base: ir.Model, pruned: ir.Model, plan: Plan) -> Iterator[str]:
    """Every weight of both graphs equals the base's at the kept positions, bit for bit.

    Integer scalars and vectors that the plan does not name hold shapes and indices, which
    compaction repairs: whether they are right is for the numbers to show.
    """
    before = base.graph.initializers
    for name, value in pruned.graph.initializers.items():
        old = before[name].const_value if name in before else None
        new = value.const_value
        if old is None or new is None or old is new:
            continue
        if len(old.shape) < 2 and not old.dtype.is_floating_point() and name not in plan.axes:
            continue
        if not _identical(take(old.numpy(), plan.axes.get(name, {})), new.numpy()):
            yield f"initializer {name} differs from the kept part of the base's"


def _identical(left: NDArray[np.generic], right: NDArray[np.generic]) -> bool:
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.dtype.kind in "OUS":
        return bool(np.array_equal(left, right))
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    return bool(np.array_equal(left.reshape(-1).view(np.uint8), right.reshape(-1).view(np.uint8)))


def nodes(base: ir.Model, pruned: ir.Model, plan: Plan) -> Iterator[str]:
    """Nodes of the same name do the same: only integers may differ, and only beside the plan.

    The integers that compaction repairs (groups, split sizes, pads, ...) belong to nodes that
    read or write a tensor of the plan; whether they are right is for the numbers to show.
    """
    before = {node.name: node for node in base.graph if node.name}
    for node in pruned.graph:
        old = before.get(node.name or "")
        if old is None:
            continue
        if (node.op_type, node.domain or "ai.onnx") != (old.op_type, old.domain or "ai.onnx"):
            yield f"node {describe(old)} became a {node.op_type}"
            continue
        touched = any(v is not None and v.name in plan.axes for v in (*old.inputs, *old.outputs))
        for name in sorted({*old.attributes, *node.attributes}):
            was = old.attributes.get(name, _default(old, name))
            if not _same_attribute(was, node.attributes.get(name), touched):
                yield f"attribute {name} of node {describe(node)} changed"


def _default(node: ir.Node, name: str) -> ir.Attr | None:
    """Return the float attribute that a node leaves to its shapes: the scale of Attention.

    It comes from the width of a head, which compaction may change: then it must be written out.
    """
    query = node.inputs[0] if node.op_type == "Attention" and name == "scale" else None
    dims = [] if query is None else dims_of(query) or []
    if not dims or not isinstance(dims[-1], int):
        return None
    heads = (node.attributes.get_int("q_num_heads", 0) or 1) if len(dims) == 3 else 1
    return ir.AttrFloat32(name, float(np.float32(1 / sqrt(dims[-1] // heads))))


def _same_attribute(old: ir.Attr | None, new: ir.Attr | None, touched: bool) -> bool:
    given = [attribute for attribute in (old, new) if attribute is not None]
    if all(attribute.type in _INTEGERS for attribute in given) and touched:
        return True
    if old is None or new is None or old.type != new.type:
        return False
    if old.type in _GRAPHS:
        return True  # bodies keep what they read; what they compute is compared as numbers
    if old.type == ir.AttributeType.TENSOR:
        return _identical(old.as_tensor().numpy(), new.as_tensor().numpy())
    return bool(old.value == new.value)

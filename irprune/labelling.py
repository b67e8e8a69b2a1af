"""One walk over a graph in topological order, in which the op rules label every value."""

from __future__ import annotations

import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.labels import Rows
from irprune.norms import find_norms
from irprune.ops import bodies, rule_for
from irprune.queries import describe, dims_of
from irprune.walk import Walk, zeros


def label(walk: Walk) -> Walk:
    """Label the whole graph of a walk, and return it; graph outputs are pinned last."""
    walk.norms = {node: norm.name for node, norm in find_norms(walk.graph).items()}
    for node in walk.graph:
        walk.where = describe(node)
        _step(walk, node)
    for value in walk.graph.outputs:
        walk.where = f"output {value.name}"
        for axis in walk.labels.get(value, ()):
            walk.pin(axis, "is part of a graph output")
    walk.settle()
    return walk


def _step(walk: Walk, node: ir.Node) -> None:
    rule = rule_for(node)
    for value in (node.inputs[k] for k in rule.lengths if k < len(node.inputs)):
        for axis in walk.rows(value) if value is not None else ():
            walk.pin(axis, "holds lengths or positions")
    rule.propagate(node, walk)
    for body in bodies(node):
        _pin_captured(walk, body)
    for value in node.outputs:
        _check(walk, node, value)


def _pin_captured(walk: Walk, body: ir.Graph) -> None:
    for inner in body.all_nodes():
        for value in inner.inputs:
            if value is not None and value.graph is walk.graph and value.shape is not None:
                for axis in walk.rows(value):
                    walk.pin(axis, "is read inside a control flow body")


def _check(walk: Walk, node: ir.Node, value: ir.Value) -> None:
    dims, axes = dims_of(value) or [], walk.labels.get(value)
    lengths = None if axes is None else [None if a is None else len(a) for a in axes]
    expected = [d if isinstance(d, int) else None for d in dims]
    if lengths is None or len(lengths) != len(expected):
        raise IrpruneError(
            f"the rule labelled {value.name} as {lengths}, its shape is {dims}",
            node=describe(node),
        )
    for k, (length, size) in enumerate(zip(lengths, expected, strict=True)):
        if length == size:
            continue
        if length is not None and size is not None:
            raise IrpruneError(
                f"axis {k} of {value.name} has {size} positions, its inputs imply {length}",
                node=describe(node),
                mend="the model's shapes disagree; check it with onnx.checker",
            )
        # Known on one side only: opaque, so what is known must stay.
        assert axes is not None
        walk.pin(axes[k], "meets a dynamic axis")
        axes[k] = zeros(size)
    for axis in axes or ():
        if isinstance(axis, Rows):
            sized = [dims[k] for k in axis.per]
            assert list(axis.labels.shape[:-1]) == sized, f"rows of {value.name}"

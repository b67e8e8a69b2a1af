"""`compact`: slice every tensor by the pending plan and repair every shape constant."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import onnx_ir as ir

from irprune.edit import Edit
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.ops import rule_for
from irprune.passbase import Context, Pass
from irprune.passes.branches import remove_branches, remove_parts
from irprune.plan import Balanced, Kept, Plan, count, take
from irprune.queries import dims_of


@dataclass(frozen=True)
class Compact(Pass):
    """Make the graph physically smaller: no masks, no gathers, the same function."""

    name = "compact"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        plan = model.pending
        if plan is None:
            return {"removed_tensors": 0}
        if model.base is None:
            model.base = model.ir.clone()
        nodes = {node.name for node in model.ir.graph}
        compact_graph(model.ir.graph, plan)
        model.plan = plan if model.plan is None else _over(model.base, model.plan.then(plan))
        model.pending = None
        removed = len(nodes - {node.name for node in model.ir.graph})
        return {"sliced_tensors": len(plan.axes)} | ({"removed_nodes": removed} if removed else {})


def _over(base: ir.Model, plan: Plan) -> Plan:
    """Return a plan without the constants that the removal of branches added to the base."""
    known = _named(base.graph)
    return replace(plan, axes={name: m for name, m in plan.axes.items() if name in known})


def compact_graph(graph: ir.Graph, plan: Plan) -> None:
    """Remove from a graph, in place, the positions that a plan does not keep.

    Raises:
        IrpruneError: the plan names a tensor or axis that the graph lacks, or empties an axis
            that the graph cannot be without. The graph is untouched then.
    """
    values = _named(graph)
    for name, masks in plan.axes.items():
        _check(name, masks, values.get(name))
    gone = remove_branches(graph, plan)
    values = _named(graph)
    edit = Edit(graph, plan)
    for node in list(graph):
        if edit.touched(node) and not gone.issuperset(node.outputs):
            rule_for(node).rewrite(node, edit)
    for name, masks in plan.axes.items():
        value = values.get(name)
        if value is None:  # it went with an emptied branch
            continue
        if value.is_initializer():
            _slice_weight(value, masks)
        _shrink_shape(value, masks)
    if gone:
        remove_parts(graph)
    _drop_unused(graph)


def _named(graph: ir.Graph) -> dict[str, ir.Value]:
    values = {v.name or "": v for v in graph.initializers.values()}
    values.update({v.name or "": v for node in graph for v in node.outputs})
    return values


def _check(name: str, masks: dict[int, Kept], value: ir.Value | None) -> None:
    dims = None if value is None else dims_of(value)
    if dims is None:
        raise IrpruneError(
            f"the plan names {name}, which the graph lacks",
            mend="apply the plan to a model of the same architecture",
        )
    for axis, mask in masks.items():
        if not 0 <= axis < len(dims) or dims[axis] != len(mask):
            raise IrpruneError(f"the plan's axis {axis} of {name} does not fit its shape {dims}")
        if isinstance(mask, Balanced):
            lengths = [dims[k] if k < len(dims) else None for k in mask.per]
            if list(mask.rows.shape[:-1]) != lengths or axis in mask.per:
                raise IrpruneError(f"the plan's rows per {mask.per} of {name} do not fit {dims}")


def _slice_weight(value: ir.Value, masks: dict[int, Kept]) -> None:
    tensor = value.const_value
    assert tensor is not None
    array = take(tensor.numpy(), masks)
    value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=value.name)


def _shrink_shape(value: ir.Value, masks: dict[int, Kept]) -> None:
    dims = list(value.shape.dims) if value.shape is not None else []
    for axis, mask in masks.items():
        dims[axis] = count(mask)
    value.shape = ir.Shape(dims)


def _drop_unused(graph: ir.Graph) -> None:
    """Drop constants whose last consumer got one of its own."""
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            graph.initializers.pop(value.name or "")

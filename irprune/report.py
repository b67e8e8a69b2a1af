"""What the commands tell about a model, as data fit for JSON."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irprune.analyses import ChannelClasses, Groups
from irprune.channels import Channels, Site
from irprune.cost import Cost
from irprune.errors import IrpruneError
from irprune.labels import Rows
from irprune.queries import describe, dims_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from irprune.model import Model
    from irprune.passbase import Context
    from irprune.protocols import LatencyRow, NodeTime
    from irprune.walk import Heads

Report = dict[str, Any]


def inspect_model(
    model: Model, context: Context, heads: Heads = "inner", allow: tuple[str, ...] = ()
) -> Report:
    """Costs, inputs and outputs, coupled groups, and what is pinned and why."""
    channels = context.get(ChannelClasses(heads, allow), model)
    sites = _Sites(channels)
    pinned = [row for row in map(sites.row, sites.distinct()) if row["pinned"]]
    contractions = [site for site in channels.contractions if site.classes.size]
    free = sum(int((site.classes > 0).sum()) for site in contractions)
    counted = sum(
        int((~(channels.from_input(site) & (site.classes == 0))).sum()) for site in contractions
    )
    return {
        "model": identity(model),
        "inputs": [_value(value) for value in model.ir.graph.inputs],
        "outputs": [_value(value) for value in model.ir.graph.outputs],
        "costs": context.get(Cost(), model).full().to_json(),
        "free": {"contraction_channels": free, "of": counted},
        "groups": [
            {
                "name": group.name,
                "classes": len(group),
                "balanced": group.rows,
                "producers": [_axis(site) for site in group.producers],
            }
            for group in context.get(Groups(heads, allow), model)
        ],
        "pinned": pinned,
    }


def explain_tensor(
    model: Model,
    context: Context,
    tensor: str,
    axis: int | None = None,
    index: int | None = None,
    heads: Heads = "inner",
    allow: tuple[str, ...] = (),
) -> Report:
    """What each axis of a tensor is coupled to and by which nodes, or what pins it.

    `axis` picks one axis (negative counts from the end) and `index` one position along it.
    Raises IrpruneError where the tensor, axis or position does not exist.
    """
    channels = context.get(ChannelClasses(heads, allow), model)
    value = _find(channels, tensor)
    dims = dims_of(value) or []
    if axis is not None and not -len(dims) <= axis < len(dims):
        raise IrpruneError(f"{tensor} has {len(dims)} axes, so no axis {axis}")
    if index is not None and axis is None:
        raise IrpruneError("a position needs an axis", mend="add --axis K")
    axes = range(len(dims)) if axis is None else [axis % len(dims)]
    return {
        "tensor": tensor,
        "shape": dims,
        "axes": [_explain_axis(channels, value, k, index) for k in axes],
    }


def _explain_axis(channels: Channels, value: ir.Value, axis: int, index: int | None) -> Report:
    classes = channels.of(value)[axis]
    raw = channels.walk.labels[value][axis]
    if classes is None or raw is None:
        return {"axis": axis, "size": None, "pinned": None, "reason": "the axis is dynamic"}
    size = classes.shape[-1]
    row: Report = {"axis": axis, "size": size}
    per = channels.per(value, axis)
    if per:
        row["per"] = list(per)
    labels = raw.labels if isinstance(raw, Rows) else raw
    if labels.ndim > classes.ndim:
        labels = labels.reshape(-1, size)[0]
    if index is not None:
        if not 0 <= index < size:
            mend = f"positions run from 0 to {size - 1}"
            raise IrpruneError(f"axis {axis} of {value.name} has no position {index}", mend=mend)
        row["index"] = index
        classes, labels = classes[..., index : index + 1], labels[..., index : index + 1]
    stuck: NDArray[np.bool_] = np.equal(classes, 0)
    row["pinned"] = int(_anywhere(stuck).sum())
    row["reason"] = channels.reason(labels[stuck]) if stuck.any() else None
    wanted = np.unique(classes[~stuck])
    row["classes"] = len(wanted)
    row["coupled"] = [
        {"tensor": other.name, "axis": k, "positions": ranges(_anywhere(np.isin(found, wanted)))}
        for other, k, found in channels.tensor_axes
        if np.isin(found, wanted).any()
    ]
    row["nodes"] = list(
        dict.fromkeys(
            link.node
            for link in channels.walk.links
            if np.isin(channels.roots[link.left], wanted).any()
        )
    )
    return row


def _anywhere(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the positions along an axis that are true in some row."""
    return np.asarray(mask.reshape(-1, mask.shape[-1]).any(axis=0))


def ranges(mask: NDArray[np.bool_]) -> list[list[int]]:
    """The true positions of a mask of shape `(positions,)` as half-open ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [[int(a), int(b)] for a, b in edges.reshape(-1, 2)]


def _find(channels: Channels, tensor: str) -> ir.Value:
    named = {value.name or "": value for value in channels.values()}
    if tensor not in named:
        near = difflib.get_close_matches(tensor, named, 3)
        mend = f"did you mean {' or '.join(near)}?" if near else "tensors are named by the graph"
        raise IrpruneError(f"the graph has no tensor {tensor}", mend=mend)
    return named[tensor]


def bench_row(row: LatencyRow) -> Report:
    """What was measured of one model; None stands for what is not known."""
    return {
        "path": row.path,
        "median_s": row.latency and row.latency.value,
        "interval_s": row.latency and [row.latency.low, row.latency.high],
        "ratio": row.ratio and row.ratio.value,
        "ratio_interval": row.ratio and [row.ratio.low, row.ratio.high],
        "memory_bytes": row.memory_bytes,
        "disk_bytes": row.disk_bytes,
        "nodes": dict(row.nodes),
        "notes": list(row.notes),
        "error": row.error,
        "samples_s": list(row.samples_s),
    }


def profile(times: Sequence[NodeTime]) -> Report:
    """The seconds of one run by node and by op type, most first; `nodes` are the model's own."""
    ops: defaultdict[str, float] = defaultdict(float)
    for time in times:
        ops[time.op] += time.seconds
    own = [time for time in times if not time.nodes]
    return {
        "total_s": sum(time.seconds for time in times),
        "runtime_s": sum(time.seconds for time in own),
        "ops": [{"op": op, "seconds": ops[op]} for op in sorted(ops, key=lambda op: -ops[op])],
        "nodes": [asdict(time) | {"nodes": list(time.nodes)} for time in times],
    }


@dataclass(frozen=True)
class _Sites:
    """The axes that parameters create or ops sum away, each (tensor, axis) once."""

    channels: Channels

    def distinct(self) -> Iterable[Site]:
        sites = [*self.channels.producers, *self.channels.contractions]
        found: dict[tuple[ir.Value, int], Site] = {}
        for site in sites:
            found.setdefault((site.value, site.axis), site)
        return found.values()

    def row(self, site: Site) -> Report:
        stuck = site.classes == 0
        reason = self.channels.reason(self.channels.labels_of(site)[stuck]) if stuck.any() else None
        return {
            **_axis(site),
            "size": stuck.shape[-1],
            "pinned": int(_anywhere(stuck).sum()),
            "reason": reason,
        }


def _axis(site: Site) -> Report:
    return {"tensor": site.value.name, "axis": site.axis, "node": describe(site.node)}


def identity(model: Model) -> Report:
    """Name, path, versions and size of a model."""
    return {
        "name": model.provenance.name,
        "path": None if model.provenance.path is None else str(model.provenance.path),
        "ir_version": model.ir.ir_version,
        "opsets": dict(model.ir.opset_imports),
        "nodes": len(model.ir.graph),
    }


def _value(value: ir.Value) -> Report:
    dtype = None if value.dtype is None else value.dtype.name
    return {"name": value.name, "dtype": dtype, "shape": dims_of(value)}

"""`dead-channels`: find channels that the outputs can do without, exactly, as a pending plan.

The base is edited at full width, so that what the removed channels contributed is added
elsewhere: constants to the biases of their readers, equal channels to one of them. The
activations stay what they were, up to the order of float additions. A product of zero counts as
zero whatever the other factor is: activations are taken to be finite.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from irprune.analyses import ChannelClasses
from irprune.channels import Channels, Site, analyse
from irprune.errors import IrpruneError
from irprune.facts import Flow
from irprune.facts.bias import Biases, store
from irprune.facts.linear import is_constant
from irprune.facts.liveness import Liveness, Policy, Read, reads_of
from irprune.facts.masks import fold_masks
from irprune.ops import rule_for
from irprune.passbase import Context, Pass, option, require_full_width
from irprune.plan import Mask
from irprune.queries import constant_of
from irprune.walk import Heads

if TYPE_CHECKING:
    from irprune.model import Model


@dataclass(frozen=True)
class DeadChannels(Pass):
    """Select channels that are zero, constant, duplicates or unused, without loss."""

    name: ClassVar[str] = "dead-channels"

    constants: bool = option(True, help="remove channels that hold zero or another constant")
    duplicates: bool = option(True, help="merge channels that are equal")
    tolerance: float = option(
        0.0, help="set filters and scales to zero whose magnitudes are at most this"
    )
    heads: Heads = option("inner", help="which axis of a split channel axis carries channels")

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise IrpruneError(f"tolerance={self.tolerance} must not be negative")

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        require_full_width(model, self.name)
        masks = fold_masks(model.ir.graph)
        if masks:
            context.changed(model)
        channels = context.get(ChannelClasses(self.heads, tie=True), model)
        zeroed = _set_small_to_zero(channels, self.tolerance) if self.tolerance else 0
        reads = reads_of(channels, Flow(model.ir.graph), Policy(self.constants, self.duplicates))
        liveness = Liveness(channels, reads)
        dead = liveness.dead
        report = _report(liveness)
        if masks:
            report["masks"] = masks
        if self.tolerance:
            report["zeroed"] = zeroed
        if dead.any():
            report["edited"] = _edit(model.ir.graph, liveness)
            # Biases may be new: the same classes, found again in the edited graph.
            edited = analyse(model.ir.graph, self.heads, tie=True)
            model.pending = edited.plan(~_found_again(dead, channels, edited))
        context.log(f"dead-channels: {int(dead.sum())} of {report['classes']} classes removed")
        return report


def _set_small_to_zero(channels: Channels, tolerance: float) -> int:
    """Set filters, weight columns and BatchNormalization scales within tolerance to zero."""
    axes: dict[ir.Value, set[int]] = {}
    for site in channels.producers:
        axes.setdefault(site.value, set()).add(site.axis)
    for node in channels.graph:
        found = [(c.weight, c.weight_axis) for c in rule_for(node).contractions(node)]
        found += [(1, 0)] if node.op_type == "BatchNormalization" else []
        for index, axis in found:
            value = None if index is None else node.inputs[index]
            if value is not None and is_constant(value):
                axes.setdefault(value, set()).add(axis)
    count = 0
    for value, found_axes in axes.items():
        for axis in sorted(found_axes):
            array = constant_of(value)
            assert array is not None
            others = tuple(k for k in range(array.ndim) if k != axis)
            largest = np.abs(array).max(axis=others, keepdims=True, initial=0)
            small = (largest <= tolerance) & (largest > 0)
            if small.any():
                store(value, np.where(small, np.zeros((), array.dtype), array))
                count += int(small.sum())
    return count


def _edit(graph: ir.Graph, liveness: Liveness) -> dict[str, int]:
    """Move what dead classes contribute; return how many positions were folded and merged."""
    biases = Biases(graph)
    counts: Counter[str] = Counter(folded=0, merged=0)
    for read, receivers in zip(liveness.reads, liveness.receivers, strict=True):
        gone = liveness.dead[read.classes] & read.needed(liveness.live) & ~read.zero
        folded = np.flatnonzero(gone & read.foldable)
        merged = np.flatnonzero(gone & ~read.foldable)
        if not len(folded) and not len(merged):
            continue
        _rewrite(biases, read, folded, merged, receivers[merged])
        counts["folded"] += len(folded)
        counts["merged"] += len(merged)
    return dict(counts)


def _rewrite(
    biases: Biases, read: Read, folded: np.ndarray, merged: np.ndarray, receivers: np.ndarray
) -> None:
    """Give the contributions of positions of one read to its bias and to other positions."""
    linear = read.linear
    assert linear is not None
    wide = np.array(linear.weights(), np.float64, order="C")
    blocks = linear.blocks(wide)
    columns = blocks.shape[2]
    const = read.facts.const.astype(np.float64)
    sums = np.zeros(blocks.shape[:2])
    for p in folded:
        group, column = divmod(p, columns)
        sums[group] += const[p] * blocks[group, :, column].sum(axis=1)
        blocks[group, :, column] = 0
    for p, to in zip(merged, receivers, strict=True):
        group, column = divmod(p, columns)
        ratio = const[p] / const[to] if read.carried[p] else 1.0
        blocks[group, :, to % columns] += ratio * blocks[group, :, column]
        blocks[group, :, column] = 0
    store(linear.weight, wide)
    factor = read.node.inputs[1 - linear.data]
    if factor is not None and factor is not linear.weight:
        biases.rename(factor, f"{factor.name}_edited")
    if len(folded):
        biases.add(linear, linear.factor * sums.ravel())


def _found_again(dead: Mask, before: Channels, after: Channels) -> Mask:
    """Return the classes of the edited graph that hold the dead classes of the graph before."""
    result = np.zeros(after.count, np.bool_)
    for value, axis, classes in before.tensor_axes:
        new = after.of(value)[axis] if dead[classes].any() else None
        if new is not None:
            result[new[dead[classes]]] = True
    assert not result[0], "an edit pinned a class that was free"
    return result


def _report(liveness: Liveness) -> dict[str, Any]:
    """Count the classes that go and the constant ones that stay, by reason."""
    count = liveness.channels.count
    zero, constant, other = (np.zeros(count, np.bool_) for _ in range(3))
    carrier = np.zeros(count, np.bool_)
    for read, receivers in zip(liveness.reads, liveness.receivers, strict=True):
        wanted = read.needed(liveness.live)
        zero[read.classes[wanted & read.zero]] = True
        constant[read.classes[wanted & read.carried]] = True
        other[read.classes[wanted & ~read.facts.known]] = True
        carrier[read.classes[receivers[(receivers >= 0) & read.carried]]] = True
    dead, merged = liveness.dead, liveness.merged
    removed = {
        "zero": dead & zero & ~constant & ~merged,
        "constant": dead & constant,
        "duplicate": dead & merged & ~constant,
        "unused": dead & ~zero & ~constant & ~merged,
    }
    stays = ~dead & (zero | constant)
    stays[0] = False
    kept = {
        "it is the last one on a tensor axis": ~dead & liveness.held,
        "it carries other constants through zero padding": stays & carrier & ~liveness.held,
        "its constant meets zero padding": stays & ~other & ~carrier & ~liveness.held,
        "it is constant for some of its readers only": stays & other & ~carrier & ~liveness.held,
    }
    return {
        "classes": int(liveness.touched[1:].sum()),
        "removed": {name: int(mask.sum()) for name, mask in removed.items()},
        "kept": {name: n for name, mask in kept.items() if (n := int(mask.sum()))},
        "pinned": _pinned(liveness),
    }


def _pinned(liveness: Liveness) -> dict[str, int]:
    """Count constant positions that nothing may remove, by the reason."""
    counts: Counter[str] = Counter()
    for read in liveness.reads:
        stuck = read.facts.known & (read.classes == 0) & read.needed(liveness.live)
        if stuck.any():
            site = Site(read.node, read.value, read.axis, read.classes)
            labels = liveness.channels.labels_of(site)[stuck]
            reason = liveness.channels.reason(labels) or "is pinned"
            counts[reason] += int(stuck.sum())
    return dict(counts)

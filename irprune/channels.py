"""Channel classes: which positions of which tensor axes must vanish together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.errors import IrpruneError
from irprune.inexact import checked
from irprune.labelling import label
from irprune.labels import PINNED, Axis, Labelled, Labels, Rows
from irprune.ops import rule_for
from irprune.plan import Balanced, Kept, Mask, Plan
from irprune.queries import dims_of
from irprune.walk import Heads, PinRecord, Walk

_ROUNDS = 4
_COPIES = ("Transpose", "Slice", "Split", "Identity", "Cast")
"""Ops through which a weight stays itself: frameworks store Linear weights transposed."""
_UNMADE = "positions that no parameter makes, as spatial ones are"


@dataclass(frozen=True)
class Site:
    """An axis of a value at one input of one node: where channels are created or summed away."""

    node: ir.Node
    value: ir.Value
    axis: int
    classes: Labels
    """Shape ``(positions,)``; ``(*lengths of other axes, positions)`` where they differ per row."""


@dataclass
class Channels:
    """The channel classes of a graph. Class 0 is pinned: it is never removed."""

    graph: ir.Graph
    walk: Walk
    roots: Labels
    """Class of every label id, shape ``(ids,)``."""
    _cache: dict[ir.Value, list[Axis]] = field(default_factory=dict, repr=False)

    @property
    def count(self) -> int:
        """One more than the largest class id."""
        return len(self.roots)

    def values(self) -> Iterator[ir.Value]:
        """Iterate over the values that have labels, in the order of the walk."""
        return iter(self.walk.labels)

    def of(self, value: ir.Value) -> list[Axis]:
        """Return the classes of each axis of a value, shape ``(positions,)``; None where opaque.

        Where they differ per index of the axes `per`, the shape is ``(*lengths, positions)``.
        """
        found = self._cache.get(value)
        if found is None:
            raw = self.walk.labels.get(value, [])
            found = [self._classes(axis) for axis in raw]
            self._cache[value] = found
        return found

    def _classes(self, axis: Labelled) -> Axis:
        if not isinstance(axis, Rows):
            return None if axis is None else self.roots[axis]
        rows = self.roots[axis.flat]
        return rows[0] if (rows == rows[0]).all() else self.roots[axis.labels]

    def per(self, value: ir.Value, axis: int) -> tuple[int, ...]:
        """Return the other axes that the classes of an axis differ along."""
        labels, classes = self.walk.labels[value][axis], self.of(value)[axis]
        rows = isinstance(labels, Rows) and classes is not None and classes.ndim > 1
        return labels.per if rows and isinstance(labels, Rows) else ()

    @cached_property
    def producers(self) -> list[Site]:
        """Parameter axes along which channels are created."""
        return [
            Site(node, value, axis, classes)
            for node in self.graph
            for index, axis in rule_for(node).producers(node)
            for value, axis, classes in self._parameter(node, index, axis)
        ]

    @cached_property
    def contractions(self) -> list[Site]:
        """Data axes that an op sums away."""
        return [
            Site(node, value, contraction.axis, classes)
            for node in self.graph
            for contraction in rule_for(node).contractions(node)
            for value, classes in self._axis(node, contraction.data, contraction.axis)
        ]

    @cached_property
    def consumers(self) -> list[Site]:
        """Parameter axes along which weights multiply the channels that an op sums away."""
        return [
            Site(node, value, axis, classes)
            for node in self.graph
            for contraction in rule_for(node).contractions(node)
            if contraction.weight is not None
            for value, axis, classes in self._parameter(
                node, contraction.weight, contraction.weight_axis
            )
        ]

    def _parameter(
        self, node: ir.Node, index: int, axis: int
    ) -> Iterator[tuple[ir.Value, int, Labels]]:
        """Yield the weight that a node's input is, or is a transposed or cut copy of, its axis, and
        the classes, unless that axis is opaque."""
        value = node.inputs[index]
        while value is not None and not _is_parameter(value):
            maker = value.producer()
            if maker is None or maker.op_type not in _COPIES or maker.domain:
                return
            if maker.op_type == "Transpose":
                axis = _source_axis(maker, axis, len(dims_of(value) or ()))
            value = maker.inputs[0]
        axes = self.of(value) if value is not None else []
        if value is not None and axes and (classes := axes[axis]) is not None:
            yield value, axis, classes

    def _axis(self, node: ir.Node, index: int, axis: int) -> Iterator[tuple[ir.Value, Labels]]:
        """Yield the value and classes at a node's input, unless that axis is opaque."""
        value = node.inputs[index]
        axes = self.of(value) if value is not None else []
        if value is not None and axes and (classes := axes[axis]) is not None:
            yield value, classes

    def from_input(self, site: Site) -> Mask:
        """Return which positions of a site are graph-input channels, in the site's shape."""
        roots = self.walk.union_find.find(self.labels_of(site))
        return (roots > 0) & (roots < self.walk.union_find.reserved)

    def labels_of(self, site: Site) -> Labels:
        """Return the label ids of a site, in the shape of its classes."""
        labels = self.walk.labels[site.value][site.axis]
        assert labels is not None
        if not isinstance(labels, Rows):
            return labels
        return labels.flat[0] if site.classes.ndim == 1 else labels.labels

    def balanced(self, keep: Mask) -> Mask:
        """Return the classes to keep, and so many more that all rows keep equally many.

        Rows take back the first of the classes that they lost.
        """
        keep = keep.copy()
        for cells in self.walk.cells:
            cells = self.roots[cells]
            kept = keep[cells]
            missing = kept.sum(axis=1).max() - kept.sum(axis=1, keepdims=True)
            keep[cells[~kept & (np.cumsum(~kept, axis=1) <= missing)]] = True
        return keep

    @cached_property
    def tensor_axes(self) -> list[tuple[ir.Value, int, Labels]]:
        """Every tensor axis with at least one removable position: (value, axis, classes)."""
        return [
            (value, k, classes)
            for value in self.values()
            for k, classes in enumerate(self.of(value))
            if classes is not None and classes.any()
        ]

    @cached_property
    def unique_axes(self) -> tuple[Labels, npt.NDArray[np.int64], dict[tuple[ir.Value, int], int]]:
        """Tensor axes with equal classes, once each; of several rows the first stands for all.

        Returns all their classes one after another, shape ``(total,)``; where each starts,
        shape ``(axes,)``; and which of them stands for a (value, axis).
        """
        seen: dict[bytes, int] = {}
        arrays: list[Labels] = []
        index: dict[tuple[ir.Value, int], int] = {}
        by_id: dict[int, int] = {}
        for value, k, classes in self.tensor_axes:
            raw = self.walk.labels[value][k]
            number = by_id.get(id(raw))
            if number is None:
                row = classes.reshape(-1, classes.shape[-1])[0]
                number = seen.setdefault(row.tobytes(), len(arrays))
                if number == len(arrays):
                    arrays.append(row)
                by_id[id(raw)] = number
            index[value, k] = number
        starts = np.cumsum([0, *map(len, arrays)])[:-1]
        flat = np.concatenate(arrays) if arrays else np.zeros(0, np.int64)
        return flat, starts.astype(np.int64), index

    def lengths(self, keep: Mask) -> npt.NDArray[np.int64]:
        """Return the kept length of each of ``unique_axes``; ``keep`` has shape ``(count,)``."""
        flat, starts, _ = self.unique_axes
        if not len(starts):
            return np.zeros(0, np.int64)
        return np.asarray(np.add.reduceat(keep[flat].astype(np.int64), starts))

    def plan(self, keep: Mask) -> Plan:
        """Return the plan that keeps the classes in ``keep``, a mask of shape ``(count,)``."""
        flat, starts, index = self.unique_axes
        masks = np.split(keep[flat], starts[1:])
        whole = [bool(mask.all()) for mask in masks]
        plan = Plan()
        for (value, axis), number in index.items():
            if not whole[number]:
                assert value.name is not None
                per = self.per(value, axis)
                kept = self._rows(value, axis, per, keep) if per else masks[number]
                plan.axes.setdefault(value.name, {})[axis] = kept
        return plan

    def _rows(self, value: ir.Value, axis: int, per: tuple[int, ...], keep: Mask) -> Kept:
        classes = self.of(value)[axis]
        assert classes is not None
        rows: Mask = keep[classes]
        counts = rows.sum(axis=-1)
        if counts.min() != counts.max():
            raise IrpruneError(
                f"the rows of axis {axis} of {value.name} would keep {counts.min()} to "
                f"{counts.max()} positions",
                mend="`Channels.balanced` makes them equal",
            )
        first = rows.reshape(-1, rows.shape[-1])[0]
        return first if (rows == first).all() else Balanced(per, rows)

    def keep_of(self, plan: Plan) -> Mask:
        """Return the classes that a plan keeps, shape ``(count,)``."""
        keep = np.ones(self.count, np.bool_)
        for value, axis, classes in self.tensor_axes:
            kept = plan.axes.get(value.name or "", {}).get(axis)
            if kept is not None:
                mask = kept.rows if isinstance(kept, Balanced) else kept
                if mask.ndim > classes.ndim:
                    raise IrpruneError(
                        f"the pending plan keeps different positions per row of {value.name}, "
                        f"which this analysis ties",
                        mend="compact first, or use the same options again",
                    )
                keep[classes[~np.broadcast_to(mask, classes.shape)]] = False
        return keep

    def reason(self, ids: Labels) -> str | None:
        """Return why the class of these label ids is pinned, by the pin nearest to them.

        None where nothing pins them.
        """
        pins = self._pins
        frontier = set(ids.tolist()) - {PINNED}
        if not frontier and len(ids):
            return f"holds {_UNMADE}"
        seen = set(frontier)
        while frontier:
            for i in frontier:
                if i in pins:
                    return f"{pins[i].reason} at {pins[i].node}"
                if 0 < i < self.walk.union_find.reserved:
                    return "is part of a graph input"
            nearest = self._neighbours(frontier) - seen
            if PINNED in nearest:  # further on lies whatever else meets such positions anywhere
                return f"meets {_UNMADE} at {self._meeting(frontier)}"
            frontier = nearest
            seen |= frontier
        return None

    def _meeting(self, ids: set[int]) -> str:
        """Return the first node that ties one of these ids to the pinned one."""
        wanted = np.fromiter(ids, np.int64, len(ids))
        return next(
            link.node
            for link in self.walk.links
            for one, other in ((link.left, link.right), (link.right, link.left))
            if np.isin(one[other == PINNED], wanted).any()
        )

    @cached_property
    def _pins(self) -> dict[int, PinRecord]:
        """The first pin of each label id that has one."""
        return {int(i): pin for pin in reversed(self.walk.pins) for i in pin.ids if i}

    @cached_property
    def _edges(self) -> tuple[Labels, Labels]:
        """Both ends of every union, both ways round, sorted by the first."""
        links = self.walk.links
        left = np.concatenate([link.left for link in links] or [np.zeros(0, np.int64)])
        right = np.concatenate([link.right for link in links] or [np.zeros(0, np.int64)])
        sources, targets = np.concatenate([left, right]), np.concatenate([right, left])
        order = np.argsort(sources, kind="stable")
        return sources[order], targets[order]

    def _neighbours(self, ids: set[int]) -> set[int]:
        sources, targets = self._edges
        wanted = np.fromiter(ids, np.int64, len(ids))
        low = np.searchsorted(sources, wanted, "left")
        high = np.searchsorted(sources, wanted, "right")
        return {int(t) for a, b in zip(low, high, strict=True) for t in targets[a:b]}


def _is_parameter(value: ir.Value) -> bool:
    """A weight: an initializer, or a constant that a ConstantOfShape node writes out in full."""
    maker = value.producer()
    return value.is_initializer() or (maker is not None and maker.op_type == "ConstantOfShape")


def _source_axis(transpose: ir.Node, axis: int, rank: int) -> int:
    """Return which axis of a Transpose's input an axis of its output is."""
    return list(transpose.attributes.get_ints("perm", range(rank)[::-1]))[axis]


def analyse(
    graph: ir.Graph, heads: Heads = "inner", allow: Sequence[str] = (), tie: bool = False
) -> Channels:
    """Walk the graph, and again while a movement op can let a surviving axis carry channels.

    Where a reshape splits or merges axes, one of them must carry the channels. The first walk
    probes; where the chosen axis turns out to be pinned and another survives, that one is
    chosen and the graph is walked again.

    Raises:
        IrpruneError: ``allow`` names something that is no inexact op.
    """
    allow = checked(allow)
    walk = label(Walk(graph, heads, allow=allow, tie=tie))
    if walk.taken:
        tried = [{key: choice.chosen for key, choice in walk.taken.items()}]
        for _ in range(_ROUNDS):
            better = _better_choices(walk)
            if better in tried:  # nothing better, or each of two seems so until it is chosen
                break
            tried.append(better)
            walk = label(Walk(graph, heads, better, allow=allow, tie=tie))
        else:
            tried.append(_better_choices(walk))
        walk = label(Walk(graph, heads, tried[-1], probing=False, allow=allow, tie=tie))
    return Channels(graph, walk, walk.union_find.roots())


def _better_choices(walk: Walk) -> dict[str, int]:
    choices: dict[str, int] = {}
    for key, choice in walk.taken.items():
        free = [
            index
            for index, parts in choice.candidates.items()
            if not all(walk.union_find.pinned(part).all() for part in parts)
        ]
        survives = choice.chosen in free or not free
        choices[key] = choice.chosen if survives else free[0]
    return choices


def pin_reasons(channels: Channels, sites: Sequence[Site]) -> dict[str, int]:
    """Count the pinned positions of the sites by reason."""
    counts: dict[str, int] = {}
    for site in sites:
        pinned = channels.labels_of(site)[site.classes == 0]
        if len(pinned):
            reason = channels.reason(pinned) or "is pinned"
            counts[reason] = counts.get(reason, 0) + len(pinned)
    return counts

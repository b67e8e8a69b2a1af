"""Channel classes: which positions of which tensor axes must vanish together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.inexact import checked
from irprune.labels import Axis, Labels
from irprune.ops import rule_for
from irprune.passbase import Analysis
from irprune.plan import Mask, Plan
from irprune.walk import Heads, PinRecord, Walk, describe

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context

_ROUNDS = 4


@dataclass(frozen=True)
class ChannelClasses(Analysis["Channels"]):
    """Give every position along every tensor axis its channel class.

    ``heads`` says which axis of a split channel axis carries the channels where both could,
    ``allow`` which inexact ops may lose channels (`irprune.inexact`).
    """

    heads: Heads = "inner"
    allow: tuple[str, ...] = ()

    def compute(self, model: Model, context: Context) -> Channels:
        return analyse(model.ir.graph, self.heads, self.allow)


@dataclass(frozen=True)
class Site:
    """An axis of a value at one input of one node: where channels are created or summed away."""

    node: ir.Node
    value: ir.Value
    axis: int
    classes: Labels


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
        """Return the classes of each axis of a value, shape ``(positions,)``; None where opaque."""
        found = self._cache.get(value)
        if found is None:
            raw = self.walk.labels.get(value, [])
            found = [None if axis is None else self.roots[axis] for axis in raw]
            self._cache[value] = found
        return found

    @cached_property
    def producers(self) -> list[Site]:
        """Parameter axes along which channels are created."""
        return [
            Site(node, value, axis, classes)
            for node in self.graph
            for index, axis in rule_for(node).producers(node)
            for value, classes in self._axis(node, index, axis)
            if _is_parameter(value)
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
            Site(node, value, contraction.weight_axis, classes)
            for node in self.graph
            for contraction in rule_for(node).contractions(node)
            if contraction.weight is not None
            for value, classes in self._axis(node, contraction.weight, contraction.weight_axis)
            if _is_parameter(value)
        ]

    def _axis(self, node: ir.Node, index: int, axis: int) -> Iterator[tuple[ir.Value, Labels]]:
        """Yield the value and classes at a node's input, unless that axis is opaque."""
        value = node.inputs[index]
        axes = self.of(value) if value is not None else []
        if value is not None and axes and (classes := axes[axis]) is not None:
            yield value, classes

    def from_input(self, site: Site) -> Mask:
        """Return which positions of a site are graph-input channels, shape ``(positions,)``."""
        labels = self.walk.labels[site.value][site.axis]
        assert labels is not None
        roots = self.walk.union_find.find(labels)
        return (roots > 0) & (roots < self.walk.union_find.reserved)

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
        """Tensor axes with equal classes, once each.

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
                number = seen.setdefault(classes.tobytes(), len(arrays))
                if number == len(arrays):
                    arrays.append(classes)
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
                plan.axes.setdefault(value.name, {})[axis] = masks[number]
        return plan

    def keep_of(self, plan: Plan) -> Mask:
        """Return the classes that a plan keeps, shape ``(count,)``."""
        keep = np.ones(self.count, np.bool_)
        for value, axis, classes in self.tensor_axes:
            mask = plan.axes.get(value.name or "", {}).get(axis)
            if mask is not None:
                keep[classes[~mask]] = False
        return keep

    def reason(self, ids: Labels) -> str | None:
        """Return why the class of these label ids is pinned, by the pin nearest to them."""
        pins = self._pins
        frontier, seen = set(ids.tolist()), set(ids.tolist())
        while frontier:
            for i in frontier:
                if i in pins:
                    return f"{pins[i].reason} at {pins[i].node}"
                if 0 < i < self.walk.union_find.reserved:
                    return "is part of a graph input"
            frontier = self._neighbours(frontier) - seen
            seen |= frontier
        return None

    @cached_property
    def _pins(self) -> dict[int, PinRecord]:
        """The first pin of each label id that has one."""
        return {int(i): pin for pin in reversed(self.walk.pins) for i in pin.ids}

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


def analyse(graph: ir.Graph, heads: Heads = "inner", allow: Sequence[str] = ()) -> Channels:
    """Walk the graph, and again while a movement op can let a surviving axis carry channels.

    Where a reshape splits or merges axes, one of them must carry the channels. The first walk
    probes; where the chosen axis turns out to be pinned and another survives, that one is
    chosen and the graph is walked again.

    Raises:
        IrpruneError: ``allow`` names something that is no inexact op.
    """
    allow = checked(allow)
    walk = Walk(graph, heads, allow=allow)
    walk.run()
    if walk.taken:
        for _ in range(_ROUNDS):
            better = _better_choices(walk)
            if better == {key: choice.chosen for key, choice in walk.taken.items()}:
                break
            walk = Walk(graph, heads, better, allow=allow)
            walk.run()
        walk = Walk(graph, heads, _better_choices(walk), probing=False, allow=allow)
        walk.run()
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
        labels = channels.walk.labels[site.value][site.axis]
        assert labels is not None
        pinned = labels[site.classes == 0]
        if len(pinned):
            reason = channels.reason(pinned) or "is pinned"
            counts[reason] = counts.get(reason, 0) + len(pinned)
    return counts


__all__ = ["ChannelClasses", "Channels", "Site", "analyse", "describe", "pin_reasons"]

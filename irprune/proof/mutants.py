"""Deliberate mistakes: weights with two channels swapped, which a proof must be able to notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.ops import rule_for
from irprune.plan import Plan
from irprune.queries import constant_of

_MOST_ELEMENTS = 1 << 24
"""Larger weights are mutated only where there are no smaller ones: they are slow to replace."""

_TRIES = 8
"""Channels of a weight to swap with another: some may be dead on all sample inputs."""


@dataclass(frozen=True)
class Mutant:
    """A graph in which positions `swapped` of axis `axis` of one weight changed places."""

    weight: str
    axis: int
    swapped: tuple[int, int]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the weight of the mutant."""
        order = np.arange(array.shape[self.axis])
        order[list(self.swapped)] = order[list(self.swapped)[::-1]]
        return np.take(array, order, axis=self.axis)


def choose_mutants(graph: ir.Graph, plan: Plan, count: int = 3) -> list[tuple[Mutant, ...]]:
    """Return the mutants of up to `count` weights, spread over the depth; always the same.

    The weights are those that the plan prunes, changed along an axis that it prunes; with an empty
    plan, or where no weight kept its name, any weights along the axis that creates channels, and
    else any floating-point initializers. In each mutant of a weight, one of its largest channels
    changes places with the one that differs most from it; weights whose channels are all alike
    have no mutant.
    """
    tiers = (_planned(graph, plan), _producers(graph), _any(graph))
    found = next((sites for sites in map(_distinct, tiers) if sites), [])
    small = [site for site in found if _array(site[0]).size <= _MOST_ELEMENTS] or found
    mutants = [swaps for site in small if (swaps := _mutants(*site))]
    picks = np.unique(np.linspace(0, len(mutants) - 1, min(count, len(mutants))).astype(int))
    return [mutants[k] for k in picks]


Site = tuple[ir.Value, int]


def _planned(graph: ir.Graph, plan: Plan) -> Iterator[Site]:
    for node, index, value in _weights(graph):
        made = [axis for number, axis in rule_for(node).producers(node) if number == index]
        planned = sorted(plan.axes.get(value.name or "", {}))
        shape = _array(value).shape
        axes = [k for k in planned if len(shape) > 1 and k < len(shape) and shape[k] > 1]
        if axes:
            yield value, next((k for k in axes if k in made), axes[0])


def _producers(graph: ir.Graph) -> Iterator[Site]:
    for node, index, value in _weights(graph):
        for number, axis in rule_for(node).producers(node):
            if number == index and _array(value).shape[axis] > 1:
                yield value, axis


def _any(graph: ir.Graph) -> Iterator[Site]:
    for _, _, value in _weights(graph):
        for axis in reversed(range(_array(value).ndim)):
            if _array(value).shape[axis] > 1:
                yield value, axis


def _weights(graph: ir.Graph) -> Iterator[tuple[ir.Node, int, ir.Value]]:
    """Iterate over the floating-point initializers that nodes of known shapes read."""
    for node in graph:
        if any(v is not None and v.shape is None for v in (*node.inputs, *node.outputs)):
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype is None or not value.dtype.is_floating_point():
                continue
            if constant_of(value) is not None:
                yield node, index, value


def _distinct(sites: Iterator[Site]) -> list[Site]:
    return list({site[0]: site for site in reversed(list(sites))}.values())[::-1]


def _array(value: ir.Value) -> NDArray[Any]:
    array = constant_of(value)
    assert array is not None
    return array


def _mutants(value: ir.Value, axis: int) -> tuple[Mutant, ...]:
    array = _array(value)
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float32)
    pairs: dict[frozenset[int], tuple[int, int]] = {}
    for channel in np.argsort(-_squares(rows), kind="stable")[:_TRIES].tolist():
        distances = _squares(rows - rows[channel])
        farthest = int(np.argmax(distances))
        if distances[farthest]:
            pairs.setdefault(frozenset((channel, farthest)), (channel, farthest))
    return tuple(Mutant(value.name or "", axis, pair) for pair in pairs.values())


def _squares(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.einsum("ij,ij->i", rows, rows))

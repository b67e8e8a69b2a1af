"""MACs, parameters and bytes of a graph as sums over kernels: what a selection can budget.

`CountedCost` implements `irprune.protocols.AdditiveCost` for what is counted rather than measured.
The peak of the activations is no sum; it is the largest of many sums, one per node (`Memory`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.channels import Channels
from irprune.cost import CostModel, elements, width_of
from irprune.ops.rule import Size
from irprune.protocols import Kernel

Lengths = npt.NDArray[np.int64]
Term = tuple[str, Callable[[Size], float]]
"""What is counted, and how much it is at given axis lengths."""


class CountedCost:
    """An `AdditiveCost` of terms that are functions of axis lengths; equal axes share a kernel."""

    def __init__(self, model: CostModel, channels: Channels, terms: Iterable[Term]) -> None:
        self._model = model
        self._index = channels.unique_axes[2]
        self.constant = 0.0
        kernels: dict[tuple[int, ...], list[Term]] = {}
        for name, count in terms:
            seen: set[int] = set()
            whole = count(partial(self._noted, seen))
            if seen:
                kernels.setdefault(tuple(sorted(seen)), []).append((name, count))
            else:
                self.constant += whole
        self.kernels: Sequence[Kernel] = [
            Kernel(", ".join(dict.fromkeys(name for name, _ in parts)), axes)
            for axes, parts in kernels.items()
        ]
        self._counts = [[count for _, count in parts] for parts in kernels.values()]

    def terms(self, kernel: int, lengths: Lengths) -> npt.NDArray[np.float64]:
        """Return the count of one kernel, shape ``(k,)``, at ``lengths`` of shape ``(k, axes)``."""
        columns = dict(zip(self.kernels[kernel].axes, lengths.T, strict=True))

        def size(value: ir.Value, axis: int) -> int:
            number = self._index.get((value, axis))
            if number is None:
                return self._model.full_size(value, axis)
            return cast(int, columns[number])  # all lengths at once

        return np.asarray(sum(count(size) for count in self._counts[kernel]), np.float64)

    def _noted(self, seen: set[int], value: ir.Value, axis: int) -> int:
        number = self._index.get((value, axis))
        if number is not None:
            seen.add(number)
        return self._model.full_size(value, axis)


def macs(model: CostModel, channels: Channels) -> CountedCost:
    """Multiply-accumulates, one term per node that has some."""
    terms = [(node.name or "", partial(rule.macs, node)) for node, rule in model.busy]
    return CountedCost(model, channels, terms)


def params(model: CostModel, channels: Channels) -> CountedCost:
    """Elements of floating-point initializers."""
    terms = [(value.name or "", partial(elements, value)) for value in model.params]
    return CountedCost(model, channels, terms)


class Memory:
    """Bytes of the weights and, at the worst moment, of the activations alive beside them."""

    def __init__(self, model: CostModel, channels: Channels) -> None:
        self._model = model
        self._channels = channels
        self._weights = [_bytes(value) for value in model.weights]

    def at(self, position: int) -> CountedCost:
        """Return the bytes while the node at a position of the graph runs."""
        alive = [
            _bytes(value)
            for value, first, last in self._model.lifetimes
            if first <= position <= last
        ]
        return CountedCost(self._model, self._channels, [*self._weights, *alive])

    def worst(self, size: Size) -> tuple[int, float]:
        """Return the position at which most bytes are needed, and the bytes there."""
        bytes_at = self._model.alive_bytes(size)
        position = int(np.argmax(bytes_at))
        return position, float(bytes_at[position]) + sum(count(size) for _, count in self._weights)


def _bytes(value: ir.Value) -> Term:
    return value.name or "", lambda size: elements(value, size) * width_of(value)

"""Which channel classes the outputs need: what reads each channel, and what can do without it.

Each *read* is one axis of a value that a node sums away. A class is dead when no read needs any
of its positions: the weights that meet the position are zero or lead to dead classes only, or
the position holds zero, or a constant that goes into the reader's bias, or its contribution is
given to another position that stays: an equal one, or, for a constant, another constant, which
carries it through zero padding exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.bias import private, takes_bias
from irprune.channels import Channels
from irprune.facts.domain import Facts, Mask, Numbers, chain, digest, positions
from irprune.facts.flow import Flow
from irprune.facts.sums import Linear, linear_of, used
from irprune.labels import Labels
from irprune.ops import rule_for
from irprune.ops.rule import Contraction

Indices = npt.NDArray[np.int64]

_NOWHERE = -1
_CARRIED = digest("a constant other than zero")


@dataclass(frozen=True)
class Policy:
    """What may be removed besides channels that nothing reads."""

    constants: bool = True
    duplicates: bool = True


@dataclass(frozen=True)
class Read:
    """One axis of a value that a node sums away; arrays speak of its positions, unless said."""

    node: ir.Node
    value: ir.Value
    axis: int
    classes: Labels
    facts: Facts
    linear: Linear | None
    """None where no constant weight multiplies the value."""
    active: Mask
    """Which rows read which columns, shape ``(groups, rows, columns)``; see `Linear`."""
    rows: Labels
    """Class of each row, shape ``(groups, rows)``."""
    policy: Policy

    def needed(self, live: Mask) -> Mask:
        """Return which positions live rows read; ``live`` has shape ``(classes,)``."""
        return (self.active & live[self.rows][:, :, None]).any(axis=1).ravel()

    @cached_property
    def zero(self) -> Mask:
        """Positions that hold zero."""
        return self.facts.known & (self.facts.const == 0) & self.policy.constants

    @cached_property
    def foldable(self) -> Mask:
        """Positions with a constant that the reader's bias can take."""
        fits = self.linear is not None and self.linear.uniform and takes_bias(self.linear)
        fits = fits and self.editable
        return self.facts.known & ~self.zero & (fits and self.policy.constants)

    @cached_property
    def editable(self) -> bool:
        """The weight can be changed without changing another node."""
        return self.linear is not None and private(self.node.inputs[self.linear.weight])

    @cached_property
    def carried(self) -> Mask:
        """Positions with a constant that another constant can carry."""
        return self.facts.known & ~self.zero & self.policy.constants

    @cached_property
    def peers(self) -> Numbers:
        """Positions with equal numbers can take each other's contributions; 0: with none."""
        if not self.editable:
            return np.zeros(len(self.classes), np.uint64)
        groups = np.repeat(positions(len(self.rows), 0), self.active.shape[2])
        numbers = np.where(self.carried, _CARRIED, self.facts.number)
        numbers = chain(digest("peers"), groups, numbers)
        usable = self.carried | self.policy.duplicates
        return np.where(usable & ~self.zero, numbers, np.uint64(0))


def reads_of(channels: Channels, flow: Flow, policy: Policy) -> list[Read]:
    """Return every read of a graph, in topological order."""
    found = []
    for node in channels.graph:
        for contraction in rule_for(node).contractions(node):
            value = node.inputs[contraction.data]
            axes = channels.of(value) if value is not None else []
            classes = axes[contraction.axis] if axes else None
            if value is not None and classes is not None:
                facts = flow.of(value).along(contraction.axis, len(classes))
                seen = linear_of(node)
                if seen is None:
                    active = _partner(node, contraction, flow, len(classes))
                    rows = np.zeros((1, 1), np.int64)
                else:
                    active = used(seen.blocks(seen.weights))
                    rows = _row_classes(seen, channels, active.shape)
                found.append(
                    Read(node, value, contraction.axis, classes, facts, seen, active, rows, policy)
                )
    return found


def _partner(node: ir.Node, contraction: Contraction, flow: Flow, length: int) -> Mask:
    """Return which positions count where an activation or nothing multiplies the value."""
    active = np.ones((1, 1, length), np.bool_)
    partner = None if contraction.weight is None else node.inputs[contraction.weight]
    if partner is not None and partner.shape is not None:
        axis = contraction.weight_axis
        if node.op_type in ("MatMul", "Gemm"):
            facts = flow.of(partner).along(axis, length)
            active[0, 0] = ~(facts.known & (facts.const == 0))
    return active


def _row_classes(linear: Linear, channels: Channels, shape: tuple[int, ...]) -> Labels:
    axis = linear.output_axis
    classes = None if axis is None else channels.of(linear.node.outputs[0])[axis]
    if classes is None:
        return np.zeros(shape[:2], np.int64)
    return classes.reshape(shape[:2])

"""Where the channels of a group are measured on data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.channels import Channels
from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.labels import Labels
from irprune.ops import rule_for
from irprune.passes.scores.gated import activation_of, scaled_by
from irprune.plan import Mask
from irprune.proof.activations import LENGTHS, inputs_of
from irprune.queries import describe

_NONLINEAR = frozenset(
    (
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Clip"),
        *("Sigmoid", "Tanh", "Erf", "HardSigmoid", "Softplus", "Softsign"),
        *("HardSwish", "Gelu", "Mish", "Swish"),
    )
)


@dataclass(frozen=True)
class Measured:
    """One axis of an activation that carries channels."""

    value: ir.Value
    axis: int
    per: tuple[int, ...]
    classes: Labels
    """Shape ``(*lengths of per, positions)``."""
    counted: Labels
    """The classes whose scores count here, ascending: others are scored elsewhere."""
    group: Group
    """The group that they belong to."""

    @property
    def name(self) -> str:
        return self.value.name or ""

    def refused(self, reason: str, mend: str) -> IrpruneError:
        """Return the error that says why the value cannot be measured, and what to do about it."""
        maker = self.value.producer()
        assert maker is not None, "only what a node makes is measured"
        mend = f'{mend}, or leave its channels alone: skip="{self.group.name}"'
        return IrpruneError(f"{self.name} {reason}", node=describe(maker), mend=mend)

    @property
    def distinct(self) -> Labels:
        """The classes that the axis carries, ascending, shape ``(count,)``."""
        return np.unique(self.classes)

    def summed(self, array: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the sum over all positions of each class, shape ``(count,)``, and their number.

        Positions on every other axis count, that of the examples too, wherever it lies.
        """
        kept = [*self.per, self.axis]
        rest = [k for k in range(array.ndim) if k not in kept]
        rows = array.transpose(*rest, *kept).reshape(-1, self.classes.size)
        _, number, counts = np.unique(self.classes, return_inverse=True, return_counts=True)
        sums = np.zeros(len(counts))
        np.add.at(sums, number.ravel(), rows.sum(axis=0, dtype=np.float64))
        return sums, counts * len(rows)


def shared(graph: ir.Graph, sites: Iterable[Measured]) -> list[Measured]:
    """Return the sites that are not computed from what the graph inputs hold.

    Learned queries are such: no example has positions of its own there, however many are fed.
    Lengths that are read from an input say nothing of its examples.
    """
    fed = set(graph.inputs)
    for node in graph:
        if node.op_type not in LENGTHS and not fed.isdisjoint(inputs_of(node)):
            fed.update(node.outputs)
    return [site for site in sites if site.value not in fed]


def measured_at(channels: Channels, group: Group) -> list[Measured]:
    """Return where the channels of a group are measured.

    From each layer that creates them, forward to the first non-linearity: of a gated one such as
    x·sigmoid(x), the product; of one that does nothing but scale other channels of the group, as in
    squeeze-and-excitation, what it scales. Channels of a layer that pass none, to the inputs of the
    layers that sum them away. Nowhere where a channel of the group meets neither: the peers could
    not be compared.
    """
    inside = np.zeros(channels.count, np.bool_)
    inside[group.classes] = True

    def carries(value: ir.Value) -> bool:
        return bool(_carried(channels, value, inside, group))

    left = _created(channels, group)
    nonlinear, linear = _ends(channels.graph, left, carries)
    sites: list[Measured] = []
    for value, layers in nonlinear.items():
        found = _carried(channels, value, inside, group)
        sites += found
        for node, site in product(layers, found):
            left[node][site.counted] = False
    for value, layers in linear.items():
        mask = np.logical_or.reduce([left[node] for node in layers])
        sites += _carried(channels, value, mask, group)
    counted = {c for site in sites for c in site.counted.tolist()}
    return sites if len(counted) == len(group) else []


def _created(channels: Channels, group: Group) -> dict[ir.Node, Mask]:
    """Return which classes of a group each layer creates, as a mask over all classes."""
    wanted = {(site.value, site.axis) for site in group.producers}
    found: dict[ir.Node, Mask] = {}
    for site in channels.producers:
        if (site.value, site.axis) in wanted:
            mask = found.setdefault(site.node, np.zeros(channels.count, np.bool_))
            mask[np.intersect1d(site.classes, group.classes)] = True
    return found


Ends = dict[ir.Value, set[ir.Node]]
"""Values, and the layers whose channels reach them."""


def _ends(
    graph: ir.Graph, layers: Iterable[ir.Node], carries: Callable[[ir.Value], bool]
) -> tuple[Ends, Ends]:
    """Return where the channels of layers first pass a non-linearity, and where they are summed."""
    nonlinear: Ends = {}
    linear: Ends = {}
    passed: Ends = {out: {node} for node in layers for out in node.outputs}
    for node in graph:  # in topological order: gates come before their products
        for value in node.inputs:
            if value is None or not passed.get(value) or not carries(value):
                continue
            if node.op_type in _NONLINEAR and node.inputs[0] is value:
                for end in scaled_by(activation_of(node.outputs[0]), carries):
                    nonlinear.setdefault(end, set()).update(passed[value])
            elif any(node.inputs[c.data] is value for c in rule_for(node).contractions(node)):
                linear.setdefault(value, set()).update(passed[value])
            else:
                for out in node.outputs:
                    passed.setdefault(out, set()).update(passed[value] - nonlinear.get(out, set()))
    return nonlinear, linear


def _carried(channels: Channels, value: ir.Value, counted: Mask, group: Group) -> list[Measured]:
    """Return the axes of a value that carry classes in a mask, which are those that count."""
    return [
        Measured(value, axis, channels.per(value, axis), classes, inside, group)
        for axis, classes in enumerate(channels.of(value))
        if classes is not None and (inside := np.unique(classes[counted[classes]])).size
    ]

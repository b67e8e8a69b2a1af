"""The coarse view of a graph: which layers create, and which sum away, a group's channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from irprune.channels import Channels
from irprune.groups import Group
from irprune.queries import describe


@dataclass
class Layer:
    """A node with parameters, and numbers of coupled groups in ascending order."""

    name: str
    creates: list[int] = field(default_factory=list)
    """Groups whose channels its parameters create."""
    sums: list[int] = field(default_factory=list)
    """Groups whose channels it sums away."""


def layers_of(channels: Channels, groups: Sequence[Group]) -> list[Layer]:
    """Return the layers that some groups tie, in the order of the graph."""
    member = np.full(channels.count, -1, np.int64)
    for group in groups:
        member[group.classes] = group.index
    creates, sums = (
        {(site.node, int(k)) for site in sites for k in np.unique(member[site.classes]) if k >= 0}
        for sites in (channels.producers, channels.contractions)
    )
    tied = {node for node, _ in creates | sums}
    layers = {node: Layer(describe(node)) for node in channels.graph if node in tied}
    for node, index in sorted(creates, key=lambda pair: pair[1]):
        layers[node].creates.append(index)
    for node, index in sorted(sums, key=lambda pair: pair[1]):
        layers[node].sums.append(index)
    return list(layers.values())

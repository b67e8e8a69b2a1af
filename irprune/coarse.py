"""The coarse view of a graph: which layers create, and which sum away, a group's channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from irprune.channels import ChannelClasses, Channels
from irprune.groups import Group, Groups
from irprune.passbase import Analysis
from irprune.walk import Heads, describe

if TYPE_CHECKING:
    import networkx as nx

    from irprune.model import Model
    from irprune.passbase import Context

LAYER, GROUP = "layer", "group"


@dataclass(frozen=True)
class CoarseView(Analysis["nx.DiGraph[Any]"]):
    """The coarse view of a model under the options of its channel classes."""

    heads: Heads = "inner"
    allow: tuple[str, ...] = ()
    tie: bool = False

    def compute(self, model: Model, context: Context) -> nx.DiGraph[Any]:
        channels = context.get(ChannelClasses(self.heads, self.allow, self.tie), model)
        groups = context.get(Groups(self.heads, self.allow, self.tie), model)
        return coarse_view(channels, groups)


def coarse_view(channels: Channels, groups: Sequence[Group]) -> nx.DiGraph[Any]:
    """Return a bipartite graph of layers and coupled groups.

    Nodes are ``(LAYER, i)``, the i-th node of the graph, with the attribute ``name``, and
    ``(GROUP, i)``, the group of that index. An edge leads from a layer to each group whose
    channels its parameters create, and from a group to each layer that sums its channels away.
    """
    import networkx as nx

    member = np.full(channels.count, -1, np.int64)
    for group in groups:
        member[group.classes] = group.index
    place = {node: i for i, node in enumerate(channels.graph)}
    view: nx.DiGraph[Any] = nx.DiGraph()
    view.add_nodes_from((GROUP, group.index) for group in groups)
    for sites, creates in ((channels.producers, True), (channels.contractions, False)):
        for site in sites:
            layer = (LAYER, place[site.node])
            for index in np.unique(member[site.classes]):
                if index >= 0:
                    view.add_node(layer, name=describe(site.node))
                    ends = (layer, (GROUP, int(index)))
                    view.add_edge(*(ends if creates else ends[::-1]))
    return view

"""The base graph of a model with its plans, for a device that measures some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irprune.channels import Channels
from irprune.cost import input_symbols
from irprune.groups import Group
from irprune.model import Model, save
from irprune.passbase import Context
from irprune.passes.compact import compact_graph
from irprune.plan import Mask
from irprune.proof.feeds import make_feeds
from irprune.protocols import Arrays


@dataclass(frozen=True)
class Candidates:
    """A `Prunable`: the plans of a model's graph over one analysis of its channels."""

    model: Model
    channels: Channels
    groups: Sequence[Group]
    symbols: Mapping[str, int]
    feeds: Arrays

    @classmethod
    def of(
        cls, model: Model, channels: Channels, groups: Sequence[Group], context: Context
    ) -> Candidates:
        """Take the graph as it stands and the input sizes of the context."""
        feeds = make_feeds(model.ir, context.shapes, context.seed, context.feeds)
        shapes = {name: array.shape for name, array in feeds.items()}
        symbols = input_symbols(model.ir.graph, shapes)
        return cls(model, channels, groups, symbols, feeds)

    def write(self, keep: Mask, path: Path) -> None:
        """Write the graph compacted by a plan to a model file."""
        compacted = self.model.ir.clone()
        compact_graph(compacted.graph, self.channels.plan(keep))
        save(compacted, path)

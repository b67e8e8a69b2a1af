"""What a user may say about how a Caffe network becomes a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


def silent(message: str) -> None:
    """The warnings that nobody listens to."""


@dataclass(frozen=True)
class Options:
    """How a network becomes a model."""

    phase: str = "TEST"
    """Which layers stand in the network, with `stages` and `level`. Layers compute as they do at
    test time in any case."""
    stages: Sequence[str] = ()
    level: int = 0
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Shapes of graph inputs by name, where the file states none or others."""
    dynamic_batch: bool = False
    """Make the first axis of every input dynamic."""
    seed: int = 0
    """Seed of the fillers."""
    end_at_heads: bool = False
    """End the graph at layers that ONNX cannot hold; what they read becomes an output."""
    merge_scale: bool = True
    """Make a Scale layer after a BatchNorm the scale and bias of that."""
    warn: Callable[[str], None] = silent
    """Takes one line for each thing that a user should know."""


DEFAULTS = Options()
"""What holds where a user says nothing."""

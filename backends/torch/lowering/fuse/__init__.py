"""Several nodes that torch computes as one: rewritten before the graph is lowered.

Each function takes the prepared graph, puts nodes of the domain `irprune.torch` in the place of
what it recognises, and leaves everything else alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from irprune.backends.torch.lowering.fuse.linear import fuse_linear

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fuse"]


def fuse(graph: ir.Graph) -> None:
    """Apply every fusion."""
    fuse_linear(graph)

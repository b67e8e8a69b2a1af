"""Transpose, DepthToSpace and SpaceToDepth: axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irprune.labels import moved
from irprune.ops.reshape import reshape_axes
from irprune.ops.rule import Rule

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.queries import Dim
    from irprune.walk import Walk


class Transpose(Rule):
    """The axes in the order ``perm`` (reversed by default)."""

    ops = ("Transpose",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        axes = walk.rows(node.inputs[0])
        perm = node.attributes.get_ints("perm") or tuple(reversed(range(len(axes))))
        walk.set(node.outputs[0], [moved(axes[k], perm.index) for k in perm])


def _rearrange(
    node: ir.Node, walk: Walk, split: Sequence[Dim], perm: Sequence[int], blocks: Sequence[int]
) -> None:
    """Reshape to ``split``, permute, reshape to the output: what both block ops are.

    The axes ``blocks`` of the split keep their length, which is an attribute of the node.
    """
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    axes = reshape_axes(walk, walk.rows(data), walk.dims(data), split, "block")
    for k in blocks:
        walk.pin(axes[k], "is part of a block")
    permuted = [moved(axes[k], perm.index) for k in perm]
    dims = [split[k] for k in perm]
    walk.set(output, reshape_axes(walk, permuted, dims, walk.dims(output), "unblock"))


def _blocked(dim: Dim, block: int) -> list[Dim]:
    """Return a spatial axis as (blocks, block); a dynamic one stays dynamic."""
    return [dim // block if isinstance(dim, int) else None, block]


class DepthToSpace(Rule):
    """Channels become blocks of pixels (PixelShuffle is its CRD mode)."""

    ops = ("DepthToSpace",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        assert node.inputs[0] is not None
        n, c, h, w = walk.dims(node.inputs[0])
        block = node.attributes.get_int("blocksize", 1)
        if not isinstance(c, int):
            walk.pin_node(node, "the number of channels is dynamic")
            return
        depth = c // block**2
        if node.attributes.get_string("mode", "DCR") == "CRD":
            split = [n, depth, block, block, h, w]
            _rearrange(node, walk, split, (0, 1, 4, 2, 5, 3), (2, 3))
        else:
            split = [n, block, block, depth, h, w]
            _rearrange(node, walk, split, (0, 3, 4, 1, 5, 2), (1, 2))


class SpaceToDepth(Rule):
    """Blocks of pixels become channels, the block position first."""

    ops = ("SpaceToDepth",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        assert node.inputs[0] is not None
        n, c, h, w = walk.dims(node.inputs[0])
        block = node.attributes.get_int("blocksize", 1)
        split = [n, c, *_blocked(h, block), *_blocked(w, block)]
        _rearrange(node, walk, split, (0, 3, 5, 1, 2, 4), (3, 5))


RULES = (Transpose(), DepthToSpace(), SpaceToDepth())

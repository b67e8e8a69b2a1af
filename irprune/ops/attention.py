"""Attention and RotaryEmbedding (opset 23): heads stand on an axis of their own, or in the width.

Shapes of Attention: Q ``(batch, q heads, queries, width)``, K ``(batch, kv heads, keys, width)``,
V ``(batch, kv heads, keys, value width)``; or of rank 3, the heads within the last axis:
``(batch, queries, q heads * width)`` and so on. Each K/V head serves the same number of
consecutive query heads, which go with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis, Labelled, Labels, Rows, moved, shifted
from irprune.ops.elementwise import broadcast
from irprune.ops.reshape import reshape_axes
from irprune.ops.rule import Contraction, Rule, Size

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk

_MASK, _PAST_KEY, _PAST_VALUE, _VALID = 3, 4, 5, 6


@dataclass
class _Heads:
    """One operand with its heads on an axis of their own."""

    batch: Axis
    heads: Labels
    places: Axis
    width: Labels
    """Shape ``(heads, width)``: heads may lose different indices, equally many each."""

    def repeated(self, heads: int) -> Labels:
        """Return the widths for so many heads, each serving consecutive ones."""
        return np.repeat(self.width, heads // len(self.heads), axis=0)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _rank(node: ir.Node) -> int:
    data = node.inputs[0]
    assert data is not None and data.shape is not None
    return len(data.shape)


def _split(walk: Walk, value: ir.Value, heads: int, key: str) -> _Heads | None:
    """Label the heads of an operand of rank 3 or 4; None where its width is unknown."""
    axes = walk.rows(value)
    if len(axes) == 4:
        return _apart(walk, axes)
    width = walk.dims(value)[2]
    if not isinstance(width, int) or heads < 1 or width % heads:
        return None
    last = walk.tied(axes[2])
    split = shifted(reshape_axes(walk, [last], [width], [heads, width // heads], key), 1)
    return _apart(walk, [axes[0], split[0], axes[1], split[1]])


def _apart(walk: Walk, axes: Sequence[Labelled]) -> _Heads | None:
    """Label an operand of rank 4; None where the number of heads or the width is unknown."""
    batch, heads, places, width = (*map(walk.tied, axes[:3]), axes[3])
    if heads is None or width is None:
        return None
    own = isinstance(width, Rows) and width.per == (1,)
    rows = width.labels if isinstance(width, Rows) and own else walk.tied(width)
    assert rows is not None
    return _Heads(batch, heads, places, np.broadcast_to(rows, (len(heads), len(width))))


def _joined(widths: Labels) -> Labelled:
    """Return the last axis of a tensor of rank 4, from its labels in each head."""
    return widths[0] if (widths == widths[0]).all() else Rows((1,), widths)


def _kept_heads(edit: Edit, value: ir.Value | None, heads: int) -> int:
    """Return how many heads keep a position of the last axis of a value of rank 3."""
    mask = edit.kept(value, -1)
    return heads if mask is None else int(mask.reshape(heads, -1).any(axis=1).sum())


class Attention(Rule):
    """Y = softmax(scale Q Kᵀ + mask) V for each head."""

    ops = ("Attention",)
    lengths = (_VALID,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        split = self._operands(node, walk)
        if split is None:
            walk.pin_node(node, "the number of heads or the width is unknown")
            return
        q, k, v = split
        for operand in (k, v):
            walk.unify(q.batch, operand.batch)
        walk.unify(k.heads, v.heads)
        walk.unify(q.heads, np.repeat(k.heads, len(q.heads) // len(k.heads)))
        walk.unify(q.width.ravel(), k.repeated(len(q.heads)).ravel())
        for axis in (q.places, k.places, v.places):
            walk.pin(axis, "is a sequence axis of Attention")
        self._past(node, walk, k, _PAST_KEY)
        self._past(node, walk, v, _PAST_VALUE)
        self._mask(node, walk, q)
        self._outputs(node, walk, q, k, v)

    @staticmethod
    def _operands(node: ir.Node, walk: Walk) -> tuple[_Heads, _Heads, _Heads] | None:
        """Return Q, K and V with known heads."""
        many = node.attributes.get_int("q_num_heads", 0) or 0
        few = node.attributes.get_int("kv_num_heads", 0) or 0
        found: list[_Heads] = []
        for index, (name, heads) in enumerate((("q", many), ("k", few), ("v", few))):
            value = node.inputs[index]
            part = None if value is None else _split(walk, value, heads, name)
            if part is None:
                return None
            found.append(part)
        q, k, v = found
        return None if len(q.heads) % len(k.heads) else (q, k, v)

    @staticmethod
    def _past(node: ir.Node, walk: Walk, now: _Heads, index: int) -> None:
        """Tie the cached keys or values to those of now."""
        value = _input(node, index)
        if value is None:
            return
        past = _apart(walk, walk.rows(value))
        if past is None:
            walk.pin(now.heads, "meets a dynamic axis")
            walk.pin(now.width.ravel(), "meets a dynamic axis")
            return
        walk.unify(now.batch, past.batch)
        walk.unify(now.heads, past.heads)
        walk.unify(now.width.ravel(), past.width.ravel())
        walk.pin(past.places, "is a sequence axis of Attention")

    @staticmethod
    def _mask(node: ir.Node, walk: Walk, q: _Heads) -> None:
        """Tie the mask's batch and heads; its last axis may be shorter than the keys."""
        mask = _input(node, _MASK)
        if mask is not None:
            axes = walk.axes(mask)
            walk.pin(axes[-1], "is a sequence axis of Attention")
            broadcast(walk, [axes[:-1], [q.batch, q.heads, q.places]])
        valid = _input(node, _VALID)
        if valid is not None:
            walk.unify(q.batch, walk.axes(valid)[0])

    @staticmethod
    def _outputs(node: ir.Node, walk: Walk, q: _Heads, k: _Heads, v: _Heads) -> None:
        output, made = node.outputs[0], v.repeated(len(q.heads))
        if len(walk.dims(output)) == 4:
            walk.set(output, [q.batch, q.heads, q.places, _joined(made)])
        else:
            width = moved(_joined(made), lambda _: 0)
            merged = reshape_axes(walk, [q.heads, width], made.shape, walk.dims(output)[2:], "y")
            walk.set(output, [q.batch, q.places, *merged])
        for value, part in zip(node.outputs[1:3], (k, v), strict=False):
            places = walk.dims(value)[2]
            zeros = np.zeros(places, np.int64) if isinstance(places, int) else None
            walk.set(value, [part.batch, part.heads, zeros, _joined(part.width)])
        for value in node.outputs[3:]:
            last = walk.dims(value)[3]
            zeros = np.zeros(last, np.int64) if isinstance(last, int) else None
            walk.set(value, [q.batch, q.heads, q.places, zeros])

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        """The widths of Q and K are summed: of a dropped head too, which scores zero then."""
        last = _rank(node) - 1
        return (Contraction(0, last), Contraction(1, last))

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        query, key = node.inputs[0], node.inputs[1]
        many = node.attributes.get_int("q_num_heads", 0) or 0
        few = node.attributes.get_int("kv_num_heads", 0) or 0
        assert query is not None and query.shape is not None
        width = query.shape[-1]
        assert isinstance(width, int)
        if "scale" not in node.attributes and edit.kept(query, -1) is not None:
            heads = many if _rank(node) == 3 else 1
            edit.set_attribute(node, "scale", float(np.float32(1 / sqrt(width // heads))))
        if _rank(node) == 3:
            edit.set_attribute(node, "q_num_heads", _kept_heads(edit, query, many))
            edit.set_attribute(node, "kv_num_heads", _kept_heads(edit, key, few))

    def macs(self, node: ir.Node, size: Size) -> int:
        query, key, output = node.inputs[0], node.inputs[1], node.outputs[0]
        assert query is not None and key is not None
        past = _input(node, _PAST_KEY)
        keys = size(key, _rank(node) - 2) + (0 if past is None else size(past, 2))
        if _rank(node) == 3:
            widths = size(query, 2) + size(output, 2)
        else:
            widths = size(query, 1) * (size(query, 3) + size(output, 3))
        return size(query, 0) * size(query, _rank(node) - 2) * keys * widths


class RotaryEmbedding(Rule):
    """Pairs of positions within the width of a head are rotated by an angle each.

    X ``(batch, heads, places, width)`` or ``(batch, places, heads * width)``; cos and sin
    ``(batch, places, pairs)``, or ``(angles, pairs)`` indexed by position ids
    ``(batch, places)``. Positions after the first ``rotary_embedding_dim`` pass unchanged, so
    that heads may lose different ones; of the others all lose the same, for they share the angles.
    """

    ops = ("RotaryEmbedding",)
    lengths = (3,)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        data = node.inputs[0]
        assert data is not None
        x = _split(walk, data, node.attributes.get_int("num_heads", 0) or 0, "x")
        if x is None:
            walk.pin_node(node, "the number of heads or the width is unknown")
            return
        cut = node.attributes.get_int("rotary_embedding_dim", 0) or x.width.shape[1]
        rotated = walk.tied(_joined(x.width[:, :cut]))
        assert rotated is not None
        if x.width[:, cut:].size:
            walk.balance(x.width[:, cut:])
        if node.attributes.get_int("interleaved", 0):
            first, second = rotated[0::2], rotated[1::2]
        else:
            first, second = np.split(rotated, 2)
        walk.unify(first, second)
        walk.pin(x.places, "is a sequence axis of RotaryEmbedding")
        for value in node.inputs[1:3]:
            *others, pairs = walk.axes(value)
            walk.unify(first, pairs)
            for axis in others:
                walk.pin(axis, "is a batch or sequence axis of RotaryEmbedding")
        walk.pin(x.batch, "is a batch axis of RotaryEmbedding")
        walk.set(node.outputs[0], walk.rows(data))

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        data = node.inputs[0]
        assert data is not None
        mask = edit.kept(data, -1)
        if mask is None:
            return
        heads = (node.attributes.get_int("num_heads", 0) or 0) if _rank(node) == 3 else 1
        rows = mask.reshape(heads, -1)
        rows = rows[rows.any(axis=1)]
        if _rank(node) == 3:
            edit.set_attribute(node, "num_heads", len(rows))
        rotated = node.attributes.get_int("rotary_embedding_dim", 0)
        if rotated:
            edit.set_attribute(node, "rotary_embedding_dim", int(rows[0, :rotated].sum()))


RULES = (Attention(), RotaryEmbedding())

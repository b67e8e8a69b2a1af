"""Attention in the shapes that exporters write: which axes may go, and the proof that they can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from attention_nets import (
    HEADS,
    MODEL,
    TOKENS,
    WIDTH,
    batch_times_heads,
    bias_initializer,
    bias_table,
    biased,
    cross_covariance,
    einsum,
    fused_chunk,
    fused_gathers,
    fused_slices,
    fused_split,
    fused_unbind,
    grouped_queries,
    grouped_queries_gathered,
    grouped_queries_tiled,
    linear_attention,
    merged,
    normalised_queries,
    one_kv_head,
    products,
    projections,
    residual,
    rotary_halves,
    rotary_interleaved,
    scale_by_division,
    scale_on_both_sides,
    separate,
    talking_heads,
    tokens,
    windows_as_strided,
    windows_rolled_by_indices,
    windows_rolled_by_slices,
)
from onnx import TensorProto
from strategies import Net, check_random_plan, ties

from irprune import api
from irprune.model import Model
from irprune.queries import constant_of
from irprune.walk import Heads

WHOLE = [1, 1, 1, 2, 2, 2]
"""Classes of a projection whose heads go as a whole."""
INNER = [1, 2, 3, 1, 2, 3]
"""Classes of a projection whose heads lose the same positions each."""
OTHER = [4, 5, 6, 4, 5, 6]
"""Those of the values, where they are free of the queries and keys."""
PINNED = [0] * 6


@dataclass(frozen=True)
class Shape:
    """One way to write attention, and the classes that tensor axes then have."""

    build: Callable[[], Net]
    whole: dict[tuple[str, int], list[int]]
    inner: dict[tuple[str, int], list[int]]


_FFN = [7, 8, 9, 10, 11]
_SEPARATE = {("q.w", 1): WHOLE, ("k.b", 0): WHOLE, ("v.w", 1): WHOLE, ("o.w", 0): WHOLE}
_APART = {("q.w", 1): INNER, ("k.b", 0): INNER, ("v.w", 1): OTHER, ("o.w", 0): OTHER}
_FUSED = {("qkv.w", 1): WHOLE * 3, ("qkv.b", 0): WHOLE * 3, ("o.w", 0): WHOLE}
_FUSED_APART = {("qkv.w", 1): INNER * 2 + OTHER, ("o.w", 0): OTHER}
_FUSED_TIED = {("qkv.w", 1): INNER * 3, ("o.w", 0): INNER}
_FEW = [1] * 6 + [2] * 6
_GROUPED = {("q.w", 1): _FEW, ("k.w", 1): WHOLE, ("v.w", 1): WHOLE, ("o.w", 0): _FEW}
_GROUPED_APART = {
    ("q.w", 1): INNER * 2,
    ("k.w", 1): INNER,
    ("v.w", 1): OTHER,
    ("o.w", 0): OTHER * 2,
}
_ROTARY = {(f"{n}.w", 1): [1] * 4 + [2] * 4 for n in "qkv"}

SHAPES = [
    *(Shape(b, _SEPARATE, _APART) for b in (separate, scale_on_both_sides, scale_by_division)),
    *(Shape(b, _SEPARATE, _APART) for b in (einsum, batch_times_heads)),
    *(Shape(b, _FUSED, _FUSED_APART) for b in (fused_split, fused_chunk, fused_slices)),
    *(Shape(b, _FUSED, _FUSED_TIED) for b in (fused_gathers, fused_unbind)),
    Shape(bias_initializer, {**_SEPARATE, ("bias", 1): [1, 2]}, {**_APART, ("bias", 1): [0, 0]}),
    Shape(bias_table, {**_SEPARATE, ("bias", 1): [1, 2]}, {**_APART, ("bias", 1): [0, 0]}),
    *(Shape(b, _SEPARATE, _APART) for b in (windows_rolled_by_slices, windows_rolled_by_indices)),
    Shape(windows_as_strided, _SEPARATE, _APART),
    *(Shape(b, _GROUPED, _GROUPED_APART) for b in (grouped_queries, grouped_queries_tiled)),
    Shape(grouped_queries_gathered, _GROUPED, _GROUPED_APART),
    Shape(
        one_kv_head,
        {("q.w", 1): [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4], ("k.w", 1): [0] * 3},
        {("q.w", 1): INNER * 2, ("k.w", 1): [1, 2, 3], ("v.w", 1): [4, 5, 6]},
    ),
    Shape(
        talking_heads,
        {
            ("q.w", 1): WHOLE,
            ("before.w", 0): [1, 2],
            ("after.w", 0): [3, 4],
            ("before.w", 1): [5, 6],
        },
        {**_APART, ("before.w", 0): [0, 0], ("after.w", 0): [0, 0]},
    ),
    Shape(
        cross_covariance,
        _SEPARATE,
        {("q.w", 1): INNER, ("o.w", 0): INNER, ("k.w", 1): PINNED, ("v.w", 1): PINNED},
    ),
    Shape(linear_attention, _SEPARATE, {("q.w", 1): PINNED, ("v.w", 1): INNER, ("o.w", 0): INNER}),
    Shape(
        normalised_queries,
        {**_SEPARATE, ("scale", 0): [1, 2]},
        {("q.w", 1): PINNED, ("k.w", 1): PINNED, ("v.w", 1): INNER, ("o.w", 0): INNER},
    ),
    Shape(
        rotary_halves,
        _ROTARY,
        {("q.w", 1): [1, 2] * 4, ("k.w", 1): [1, 2] * 4, ("cos", 1): [1, 2, 1, 2]},
    ),
    Shape(
        rotary_interleaved,
        _ROTARY,
        {("q.w", 1): [1, 1, 2, 2] * 2, ("k.w", 1): [1, 1, 2, 2] * 2, ("sin", 1): [1, 1, 2, 2]},
    ),
]


@pytest.mark.parametrize("heads", ["whole", "inner"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.build.__name__)
def test_attention_is_pruned_and_proved(shape: Shape, heads: Heads) -> None:
    net = shape.build()
    expected = shape.whole if heads == "whole" else shape.inner
    model = api.run("normalize", net.model(), verify=False).model
    assert ties(model, *expected, heads=heads) == list(expected.values())
    assert all(ties(model, ("up.w", 1), heads=heads)[0])
    for seed in range(2):
        check_random_plan(model, seed, heads)
    pipeline = f"normalize, prune{{ratio=0.4 scope=local heads={heads} min=1}}, compact"
    small = api.run(pipeline, net.model()).model  # proves at the end
    assert _scale(small) == _scale(model)


def _scale(model: Model) -> list[float]:
    """The scale of the scores, where it is a constant."""
    value = model.ir.graph.initializers.get("scale")
    numbers = constant_of(value) if value is not None else None
    return [] if numbers is None or numbers.ndim > 1 else numbers.ravel().tolist()


def test_heads_come_out_of_a_dynamic_batch_of_heads() -> None:
    """Scores of the keys by (batch * heads, tokens, width), as a dynamo export writes them."""
    net = Net(18)
    x = tokens(net)
    q, k, v = projections(net, x)
    k = net.op("Transpose", net.op("Reshape", k, net.ints(-1, TOKENS, WIDTH)), perm=[0, 2, 1])
    k = net.op("Reshape", k, net.ints(-1, HEADS, WIDTH, TOKENS))
    a = net.op("Softmax", net.op("MatMul", q, k), axis=-1)
    residual(net, merged(net, net.op("MatMul", a, v)), x)
    model = api.run("normalize", net.model(), verify=False).model
    assert ties(model, *_SEPARATE, heads="whole") == list(_SEPARATE.values())
    api.run("normalize, prune{ratio=0.5 scope=local heads=whole}, compact", net.model())


def test_words_are_looked_up_in_a_narrower_table() -> None:
    """Columns of an embedding are channels: with no norm in the way they may go."""
    net = Net()
    words = net.input("N", TOKENS, name="x", dtype=TensorProto.INT64)
    x = net.op("Gather", net.weight(7, MODEL, name="words"), words)
    x = net.op("Add", x, net.weight(TOKENS, MODEL, name="places"))
    q, k, v = projections(net, x)
    a = net.op("Softmax", products(net, q, k), axis=-1)
    net.linear(biased(net, merged(net, net.op("MatMul", a, v)), MODEL, 3, "o"), 3, 2, "y")
    model = api.run("normalize", net.model(), verify=False).model
    columns = [1, 2, 3, 4, 5, 6]
    assert ties(model, ("words", 1), ("places", 1), ("q.w", 0)) == [columns] * 3
    pipeline = "normalize, prune{ratio=0.5 scope=local only=words}, compact"
    small = api.run(pipeline, net.model()).model.ir.graph
    assert list(small.initializers["words"].shape) == [7, 3]

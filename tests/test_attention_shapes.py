"""Attention in the shapes that exporters write: which axes may go, and the proof that they can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto
from strategies import Dim, Net, check_random_plan, ties

from irprune import api
from irprune.model import Model
from irprune.walk import Heads, constant_of

HEADS, WIDTH, TOKENS, HIDDEN = 2, 3, 4, 5
MODEL = HEADS * WIDTH

WHOLE = [1, 1, 1, 2, 2, 2]
"""Classes of a projection whose heads go as a whole."""
INNER = [1, 2, 3, 1, 2, 3]
"""Classes of a projection whose heads lose the same positions each."""
OTHER = [4, 5, 6, 4, 5, 6]
"""Those of the values, where they are free of the queries and keys."""
PINNED = [0] * 6


def _biased(net: Net, x: str, inner: int, outer: int, name: str) -> str:
    return net.op("Add", net.linear(x, inner, outer, name), net.weight(outer, name=f"{name}.b"))


def _heads(net: Net, x: str, count: int = HEADS, tokens: int = TOKENS) -> str:
    """(batch, tokens, heads * width) as (batch, heads, tokens, width)."""
    x = net.op("Reshape", x, net.ints(0, tokens, count, -1))
    return net.op("Transpose", x, perm=[0, 2, 1, 3])


def _scores(net: Net, q: str, k: str, perm: Sequence[int] = (0, 1, 3, 2)) -> str:
    """Scaled products (batch, heads, tokens, tokens)."""
    s = net.op("MatMul", q, net.op("Transpose", k, perm=list(perm)))
    return net.op("Mul", s, net.constant(np.float32(WIDTH**-0.5), "scale"))


def _merged(net: Net, x: str, tokens: int = TOKENS, hidden: int = MODEL) -> str:
    x = net.op("Transpose", x, perm=[0, 2, 1, 3])
    return net.op("Reshape", x, net.ints(0, tokens, hidden))


def _finish(net: Net, scores: str, v: str, x: str) -> str:
    """Softmax, values, output projection, residual, and a feed-forward block."""
    a = net.op("Softmax", scores, name="a", axis=-1)
    return _residual(net, _merged(net, net.op("MatMul", a, v)), x)


def _residual(net: Net, merged: str, x: str, hidden: int = MODEL) -> str:
    x = net.op("Add", _biased(net, merged, hidden, MODEL, "o"), x)
    h = net.op("Gelu" if net.opset >= 20 else "Tanh", _biased(net, x, MODEL, HIDDEN, "up"))
    return net.op("Add", x, _biased(net, h, HIDDEN, MODEL, "down"), name="y")


def _tokens(net: Net, batch: Dim = "N") -> str:
    return net.input(batch, TOKENS, MODEL)


def _separate(net: Net, x: str) -> tuple[str, str, str]:
    q, k, v = (_heads(net, _biased(net, x, MODEL, MODEL, n)) for n in "qkv")
    return q, k, v


def _fused(net: Net, x: str) -> str:
    return _biased(net, x, MODEL, 3 * MODEL, "qkv")


# The shapes


def separate() -> Net:
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    _finish(net, _scores(net, q, k), v, x)
    return net


def scale_on_both_sides() -> Net:
    """As scaled_dot_product_attention exports: the root of the scale on q and on k."""
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    k = net.op("Transpose", k, perm=[0, 1, 3, 2])
    root = net.constant(np.float32([WIDTH**-0.25]), "scale")
    scores = net.op("MatMul", net.op("Mul", q, root), net.op("Mul", k, root))
    _finish(net, net.op("Add", scores, net.weight(TOKENS, TOKENS, name="mask")), v, x)
    return net


def scale_by_division() -> Net:
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    _finish(net, net.op("Div", scores, net.constant(np.float32(WIDTH**0.5), "scale")), v, x)
    return net


def einsum() -> Net:
    net = Net()
    x = _tokens(net)
    q, k, v = (
        net.op("Reshape", _biased(net, x, MODEL, MODEL, n), net.ints(0, TOKENS, HEADS, WIDTH))
        for n in "qkv"
    )
    scores = net.op("Einsum", q, k, equation="bnhd,bmhd->bhnm")
    a = net.op("Softmax", net.op("Mul", scores, net.constant(np.float32(0.6), "scale")), axis=-1)
    x = net.op("Einsum", a, v, equation="bhnm,bmhd->bnhd")
    _residual(net, net.op("Reshape", x, net.ints(0, TOKENS, MODEL)), "x")
    return net


def batch_times_heads() -> Net:
    """As nn.MultiheadAttention: tokens first, then (batch * heads, tokens, width)."""
    net = Net()
    x = _tokens(net, 2)
    t = net.op("Transpose", x, perm=[1, 0, 2])
    parts = []
    for n in "qkv":
        p = net.op("Reshape", _biased(net, t, MODEL, MODEL, n), net.ints(TOKENS, -1, WIDTH))
        parts.append(net.op("Transpose", p, perm=[1, 0, 2]))
    scores = _scores(net, parts[0], parts[1], (0, 2, 1))
    z = net.op("MatMul", net.op("Softmax", scores, axis=-1), parts[2])
    z = net.op("Reshape", net.op("Transpose", z, perm=[1, 0, 2]), net.ints(-1, MODEL))
    z = net.op("Reshape", _biased(net, z, MODEL, MODEL, "o"), net.ints(TOKENS, -1, MODEL))
    x = net.op("Add", net.op("Transpose", z, perm=[1, 0, 2]), x)
    h = net.op("Tanh", _biased(net, x, MODEL, HIDDEN, "up"))
    net.op("Add", x, _biased(net, h, HIDDEN, MODEL, "down"), name="y")
    return net


def fused_split() -> Net:
    net = Net()
    x = _tokens(net)
    sizes = net.ints(MODEL, MODEL, MODEL)
    parts = net.split("Split", _fused(net, x), sizes, names=["s0", "s1", "s2"], axis=-1)
    q, k, v = (_heads(net, p) for p in parts)
    _finish(net, _scores(net, q, k), v, x)
    return net


def fused_chunk() -> Net:
    net = Net(18)
    x = _tokens(net)
    names = ["s0", "s1", "s2"]
    parts = net.split("Split", _fused(net, x), names=names, axis=-1, num_outputs=3)
    q, k, v = (_heads(net, p) for p in parts)
    _finish(net, _scores(net, q, k), v, x)
    return net


def fused_slices() -> Net:
    net = Net()
    x = _tokens(net)
    qkv = _fused(net, x)
    ends = (MODEL, 2 * MODEL, 2**63 - 1)
    parts = [
        net.op("Slice", qkv, net.ints(i * MODEL), net.ints(end), net.ints(-1))
        for i, end in enumerate(ends)
    ]
    q, k, v = (_heads(net, p) for p in parts)
    _finish(net, _scores(net, q, k), v, x)
    return net


def fused_gathers() -> Net:
    """As timm: (batch, tokens, 3, heads, width), then one of three."""
    net = Net()
    x = _tokens(net)
    qkv = net.op("Reshape", _fused(net, x), net.ints(0, TOKENS, 3, HEADS, WIDTH))
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.op("Gather", qkv, net.constant(np.int64(i)), axis=0) for i in range(3))
    _finish(net, _scores(net, q, k), v, x)
    return net


def fused_unbind() -> Net:
    """Split along the axis of three, then Squeeze."""
    net = Net()
    x = _tokens(net)
    qkv = net.op("Reshape", _fused(net, x), net.ints(0, TOKENS, 3, HEADS, WIDTH))
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    parts = net.split("Split", qkv, net.ints(1, 1, 1), names=["s0", "s1", "s2"], axis=0)
    q, k, v = (net.op("Squeeze", p, net.ints(0)) for p in parts)
    _finish(net, _scores(net, q, k), v, x)
    return net


def bias_initializer() -> Net:
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    bias = net.weight(1, HEADS, TOKENS, TOKENS, name="bias")
    _finish(net, net.op("Add", _scores(net, q, k), bias), v, x)
    return net


def bias_table() -> Net:
    """As Swin: rows of a table (positions, heads) by a constant index."""
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    places = np.add.outer(np.arange(TOKENS), -np.arange(TOKENS)).ravel() + TOKENS - 1
    bias = net.op("Gather", net.weight(2 * TOKENS - 1, HEADS, name="bias"), net.constant(places))
    bias = net.op("Reshape", bias, net.ints(TOKENS, TOKENS, -1))
    bias = net.op("Unsqueeze", net.op("Transpose", bias, perm=[2, 0, 1]), net.ints(0))
    _finish(net, net.op("Add", _scores(net, q, k), bias), v, x)
    return net


def _windows(net: Net, x: str) -> str:
    """(batch, 4, 4, model) as (windows, 4 tokens, model)."""
    x = net.op("Reshape", x, net.ints(2, 2, 2, 2, 2, MODEL))
    x = net.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    return net.op("Reshape", x, net.ints(-1, TOKENS, MODEL))


def _images(net: Net, x: str) -> str:
    x = net.op("Reshape", x, net.ints(2, 2, 2, 2, 2, MODEL))
    return net.op("Reshape", net.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5]), net.ints(2, 4, 4, -1))


def _windowed(net: Net, windows: str) -> str:
    """Attention in each of eight windows, a mask per window written by ScatterND."""
    q, k, v = _separate(net, windows)
    zeros = net.op("ConstantOfShape", net.ints(TOKENS, TOKENS, TOKENS))
    rows, far = net.constant(np.array([[1], [3]])), net.weight(2, TOKENS, TOKENS, name="far")
    mask = net.op("ScatterND", zeros, rows, far)
    mask = net.op("Unsqueeze", mask, net.ints(0, 2))
    scores = net.op("Reshape", _scores(net, q, k), net.ints(-1, 4, HEADS, TOKENS, TOKENS))
    scores = net.op("Reshape", net.op("Add", scores, mask), net.ints(-1, HEADS, TOKENS, TOKENS))
    a = net.op("Softmax", scores, axis=-1)
    return _biased(net, _merged(net, net.op("MatMul", a, v)), MODEL, MODEL, "o")


def _rest(net: Net, z: str, x: str) -> Net:
    x = net.op("Add", z, x)
    h = net.op("Tanh", _biased(net, x, MODEL, HIDDEN, "up"))
    net.op("Add", x, _biased(net, h, HIDDEN, MODEL, "down"), name="y")
    return net


def _rolled(net: Net, x: str, axis: int, by: int) -> str:
    head = net.op("Slice", x, net.ints(by), net.ints(2**63 - 1), net.ints(axis))
    return net.op(
        "Concat", head, net.op("Slice", x, net.ints(0), net.ints(by), net.ints(axis)), axis=axis
    )


def windows_rolled_by_slices() -> Net:
    net = Net()
    x = net.input(2, 4, 4, MODEL)
    z = _windowed(net, _windows(net, _rolled(net, _rolled(net, x, 1, 1), 2, 1)))
    return _rest(net, _rolled(net, _rolled(net, _images(net, z), 1, 3), 2, 3), x)


def windows_rolled_by_indices() -> Net:
    net = Net()
    x = net.input(2, 4, 4, MODEL)
    z = x
    for axis in (1, 2):
        z = net.op("Gather", z, net.ints(1, 2, 3, 0), axis=axis)
    z = _images(net, _windowed(net, _windows(net, z)))
    for axis in (1, 2):
        z = net.op("Gather", z, net.ints(3, 0, 1, 2), axis=axis)
    return _rest(net, z, x)


def windows_as_strided() -> Net:
    """The whole tensor flattened, and gathered by one index of the windows' shape."""
    net = Net()
    x = net.input(2, 4, 4, MODEL)
    places = np.arange(2 * 16 * MODEL).reshape(2, 2, 2, 2, 2, MODEL).transpose(0, 1, 3, 2, 4, 5)
    flat = net.op("Reshape", x, net.ints(-1))
    windows = net.op("Gather", flat, net.constant(places.reshape(8, TOKENS, MODEL)), axis=0)
    return _rest(net, _images(net, _windowed(net, windows)), x)


# Fewer heads of keys and values, rotations, other statistics

GROUPS = 2
KV = HEADS
QUERIES = GROUPS * KV


def _grouped(copy: Callable[[Net, str], str], kv: int = KV) -> Net:
    net = Net()
    x = _tokens(net)
    q = _heads(net, _biased(net, x, MODEL, QUERIES * WIDTH, "q"), QUERIES)
    k, v = (copy(net, _heads(net, _biased(net, x, MODEL, kv * WIDTH, n), kv)) for n in ("k", "v"))
    a = net.op("Softmax", _scores(net, q, k), axis=-1)
    z = _merged(net, net.op("MatMul", a, v), hidden=QUERIES * WIDTH)
    _residual(net, z, x, QUERIES * WIDTH)
    return net


def grouped_queries() -> Net:
    def copied(net: Net, x: str) -> str:
        x = net.op("Unsqueeze", x, net.ints(2))
        x = net.op("Expand", x, net.ints(1, KV, GROUPS, TOKENS, WIDTH))
        return net.op("Reshape", x, net.ints(-1, QUERIES, TOKENS, WIDTH))

    return _grouped(copied)


def grouped_queries_tiled() -> Net:
    def copied(net: Net, x: str) -> str:
        x = net.op("Unsqueeze", x, net.ints(2))
        x = net.op("Tile", x, net.ints(1, 1, GROUPS, 1, 1))
        return net.op("Reshape", x, net.ints(0, QUERIES, TOKENS, WIDTH))

    return _grouped(copied)


def grouped_queries_gathered() -> Net:
    """As repeat_interleave: each head by its index, twice."""
    index = np.repeat(np.arange(KV), GROUPS)
    return _grouped(lambda net, x: net.op("Gather", x, net.constant(index), axis=1))


def one_kv_head() -> Net:
    return _grouped(lambda net, x: net.op("Expand", x, net.ints(1, QUERIES, TOKENS, WIDTH)), kv=1)


def talking_heads() -> Net:
    """Heads are mixed before and after softmax, by matrices over the axis of heads."""
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    s = net.op("Transpose", _scores(net, q, k), perm=[0, 2, 3, 1])
    s = net.op("Transpose", _biased(net, s, HEADS, HEADS, "before"), perm=[0, 3, 1, 2])
    a = net.op("Softmax", s, axis=-1)
    a = net.conv(a, HEADS, HEADS, 1, 1, name="after")
    _residual(net, _merged(net, net.op("MatMul", a, v)), x)
    return net


def cross_covariance() -> Net:
    """XCA: the softmax runs over the width of the keys, so that it stays there."""
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    q, k, v = (net.op("Transpose", t, perm=[0, 1, 3, 2]) for t in (q, k, v))
    a = net.op("Softmax", _scores(net, q, k), axis=-1)
    z = net.op("Transpose", net.op("MatMul", a, v), perm=[0, 3, 1, 2])
    _residual(net, net.op("Reshape", z, net.ints(0, TOKENS, MODEL)), x)
    return net


def linear_attention() -> Net:
    """The softmax of q runs over the width, that of k over the tokens."""
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    q, k = net.op("Softmax", q, axis=-1), net.op("Softmax", k, axis=2)
    context = net.op("MatMul", net.op("Transpose", k, perm=[0, 1, 3, 2]), v)
    _residual(net, _merged(net, net.op("MatMul", q, context)), x)
    return net


def normalised_queries() -> Net:
    """Cosine attention, as Swin v2: the norm over the width keeps it, a scale per head passes."""
    net = Net()
    x = _tokens(net)
    q, k, v = _separate(net, x)
    q, k = (
        net.op("Div", t, net.op("Clip", net.op("ReduceL2", t, axes=[-1]), net.weight(low=1)))
        for t in (q, k)
    )
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    _finish(net, net.op("Mul", scores, net.weight(HEADS, 1, 1, name="scale")), v, x)
    return net


def _rotated(rotate: Callable[[Net, str], str]) -> Net:
    """Heads of width 4: two pairs."""
    net = Net()
    x = _tokens(net)
    hidden = 4 * HEADS
    q, k, v = (_heads(net, _biased(net, x, MODEL, hidden, n)) for n in "qkv")
    angles = [net.weight(TOKENS, 4, name=n) for n in ("cos", "sin")]
    q, k = (
        net.op("Add", net.op("Mul", t, angles[0]), net.op("Mul", rotate(net, t), angles[1]))
        for t in (q, k)
    )
    a = net.op("Softmax", _scores(net, q, k), axis=-1)
    _residual(net, _merged(net, net.op("MatMul", a, v), hidden=hidden), x, hidden)
    return net


def rotary_halves() -> Net:
    def rotate(net: Net, x: str) -> str:
        low = net.op("Slice", x, net.ints(0), net.ints(2), net.ints(3))
        high = net.op("Slice", x, net.ints(2), net.ints(2**63 - 1), net.ints(3))
        return net.op("Concat", net.op("Neg", high), low, axis=-1)

    return _rotated(rotate)


def rotary_interleaved() -> Net:
    def rotate(net: Net, x: str) -> str:
        even, odd = (
            net.op("Slice", x, net.ints(i), net.ints(2**63 - 1), net.ints(3), net.ints(2))
            for i in (0, 1)
        )
        even, odd = (net.op("Unsqueeze", t, net.ints(-1)) for t in (even, net.op("Neg", odd)))
        pairs = net.op("Concat", odd, even, axis=-1)
        return net.op("Reshape", pairs, net.ints(0, HEADS, TOKENS, 4))

    return _rotated(rotate)


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
    x = _tokens(net)
    q, k, v = _separate(net, x)
    k = net.op("Transpose", net.op("Reshape", k, net.ints(-1, TOKENS, WIDTH)), perm=[0, 2, 1])
    k = net.op("Reshape", k, net.ints(-1, HEADS, WIDTH, TOKENS))
    a = net.op("Softmax", net.op("MatMul", q, k), axis=-1)
    _residual(net, _merged(net, net.op("MatMul", a, v)), x)
    model = api.run("normalize", net.model(), verify=False).model
    assert ties(model, *_SEPARATE, heads="whole") == list(_SEPARATE.values())
    api.run("normalize, prune{ratio=0.5 scope=local heads=whole}, compact", net.model())


def test_words_are_looked_up_in_a_narrower_table() -> None:
    """Columns of an embedding are channels: with no norm in the way they may go."""
    net = Net()
    words = net.input("N", TOKENS, name="x", dtype=TensorProto.INT64)
    x = net.op("Gather", net.weight(7, MODEL, name="words"), words)
    x = net.op("Add", x, net.weight(TOKENS, MODEL, name="places"))
    q, k, v = _separate(net, x)
    a = net.op("Softmax", _scores(net, q, k), axis=-1)
    net.linear(_biased(net, _merged(net, net.op("MatMul", a, v)), MODEL, 3, "o"), 3, 2, "y")
    model = api.run("normalize", net.model(), verify=False).model
    columns = [1, 2, 3, 4, 5, 6]
    assert ties(model, ("words", 1), ("places", 1), ("q.w", 0)) == [columns] * 3
    pipeline = "normalize, prune{ratio=0.5 scope=local only=words}, compact"
    small = api.run(pipeline, net.model()).model.ir.graph
    assert list(small.initializers["words"].shape) == [7, 3]

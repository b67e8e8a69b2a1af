"""Attention blocks in the shapes that exporters write, each a graph in a few lines.

Weights are named q, k, v or qkv (projections), o (output), up and down (feed-forward).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from strategies import Dim, Net

HEADS, WIDTH, TOKENS, HIDDEN = 2, 3, 4, 5
MODEL = HEADS * WIDTH


def biased(net: Net, x: str, inner: int, outer: int, name: str) -> str:
    return net.op("Add", net.linear(x, inner, outer, name), net.weight(outer, name=f"{name}.b"))


def heads(net: Net, x: str, count: int = HEADS, tokens: int = TOKENS) -> str:
    """(batch, tokens, heads * width) as (batch, heads, tokens, width)."""
    x = net.op("Reshape", x, net.ints(0, tokens, count, -1))
    return net.op("Transpose", x, perm=[0, 2, 1, 3])


def products(net: Net, q: str, k: str, perm: Sequence[int] = (0, 1, 3, 2)) -> str:
    """Scaled products (batch, heads, tokens, tokens)."""
    s = net.op("MatMul", q, net.op("Transpose", k, perm=list(perm)))
    return net.op("Mul", s, net.constant(np.float32(WIDTH**-0.5), "scale"))


def merged(net: Net, x: str, tokens: int = TOKENS, hidden: int = MODEL) -> str:
    x = net.op("Transpose", x, perm=[0, 2, 1, 3])
    return net.op("Reshape", x, net.ints(0, tokens, hidden))


def finish(net: Net, scores: str, v: str, x: str) -> str:
    """Softmax, values, output projection, residual, and a feed-forward block."""
    a = net.op("Softmax", scores, name="a", axis=-1)
    return residual(net, merged(net, net.op("MatMul", a, v)), x)


def residual(net: Net, merged: str, x: str, hidden: int = MODEL) -> str:
    x = net.op("Add", biased(net, merged, hidden, MODEL, "o"), x)
    h = net.op("Gelu" if net.opset >= 20 else "Tanh", biased(net, x, MODEL, HIDDEN, "up"))
    return net.op("Add", x, biased(net, h, HIDDEN, MODEL, "down"), name="y")


def tokens(net: Net, batch: Dim = "N") -> str:
    return net.input(batch, TOKENS, MODEL)


def projections(net: Net, x: str) -> tuple[str, str, str]:
    q, k, v = (heads(net, biased(net, x, MODEL, MODEL, n)) for n in "qkv")
    return q, k, v


def fused(net: Net, x: str) -> str:
    return biased(net, x, MODEL, 3 * MODEL, "qkv")


# The shapes


def separate() -> Net:
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    finish(net, products(net, q, k), v, x)
    return net


def scale_on_both_sides() -> Net:
    """As scaled_dot_product_attention exports: the root of the scale on q and on k."""
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    k = net.op("Transpose", k, perm=[0, 1, 3, 2])
    root = net.constant(np.float32([WIDTH**-0.25]), "scale")
    scores = net.op("MatMul", net.op("Mul", q, root), net.op("Mul", k, root))
    finish(net, net.op("Add", scores, net.weight(TOKENS, TOKENS, name="mask")), v, x)
    return net


def scale_by_division() -> Net:
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    finish(net, net.op("Div", scores, net.constant(np.float32(WIDTH**0.5), "scale")), v, x)
    return net


def einsum() -> Net:
    net = Net()
    x = tokens(net)
    q, k, v = (
        net.op("Reshape", biased(net, x, MODEL, MODEL, n), net.ints(0, TOKENS, HEADS, WIDTH))
        for n in "qkv"
    )
    scores = net.op("Einsum", q, k, equation="bnhd,bmhd->bhnm")
    a = net.op("Softmax", net.op("Mul", scores, net.constant(np.float32(0.6), "scale")), axis=-1)
    x = net.op("Einsum", a, v, equation="bhnm,bmhd->bnhd")
    residual(net, net.op("Reshape", x, net.ints(0, TOKENS, MODEL)), "x")
    return net


def batch_times_heads() -> Net:
    """As nn.MultiheadAttention: tokens first, then (batch * heads, tokens, width)."""
    net = Net()
    x = tokens(net, 2)
    t = net.op("Transpose", x, perm=[1, 0, 2])
    parts = []
    for n in "qkv":
        p = net.op("Reshape", biased(net, t, MODEL, MODEL, n), net.ints(TOKENS, -1, WIDTH))
        parts.append(net.op("Transpose", p, perm=[1, 0, 2]))
    scores = products(net, parts[0], parts[1], (0, 2, 1))
    z = net.op("MatMul", net.op("Softmax", scores, axis=-1), parts[2])
    z = net.op("Reshape", net.op("Transpose", z, perm=[1, 0, 2]), net.ints(-1, MODEL))
    z = net.op("Reshape", biased(net, z, MODEL, MODEL, "o"), net.ints(TOKENS, -1, MODEL))
    x = net.op("Add", net.op("Transpose", z, perm=[1, 0, 2]), x)
    h = net.op("Tanh", biased(net, x, MODEL, HIDDEN, "up"))
    net.op("Add", x, biased(net, h, HIDDEN, MODEL, "down"), name="y")
    return net


def fused_split() -> Net:
    net = Net()
    x = tokens(net)
    sizes = net.ints(MODEL, MODEL, MODEL)
    parts = net.split("Split", fused(net, x), sizes, names=["s0", "s1", "s2"], axis=-1)
    q, k, v = (heads(net, p) for p in parts)
    finish(net, products(net, q, k), v, x)
    return net


def fused_chunk() -> Net:
    net = Net(18)
    x = tokens(net)
    names = ["s0", "s1", "s2"]
    parts = net.split("Split", fused(net, x), names=names, axis=-1, num_outputs=3)
    q, k, v = (heads(net, p) for p in parts)
    finish(net, products(net, q, k), v, x)
    return net


def fused_slices() -> Net:
    net = Net()
    x = tokens(net)
    qkv = fused(net, x)
    ends = (MODEL, 2 * MODEL, 2**63 - 1)
    parts = [
        net.op("Slice", qkv, net.ints(i * MODEL), net.ints(end), net.ints(-1))
        for i, end in enumerate(ends)
    ]
    q, k, v = (heads(net, p) for p in parts)
    finish(net, products(net, q, k), v, x)
    return net


def fused_gathers() -> Net:
    """As timm: (batch, tokens, 3, heads, width), then one of three."""
    net = Net()
    x = tokens(net)
    qkv = net.op("Reshape", fused(net, x), net.ints(0, TOKENS, 3, HEADS, WIDTH))
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.op("Gather", qkv, net.constant(np.int64(i)), axis=0) for i in range(3))
    finish(net, products(net, q, k), v, x)
    return net


def fused_unbind() -> Net:
    """Split along the axis of three, then Squeeze."""
    net = Net()
    x = tokens(net)
    qkv = net.op("Reshape", fused(net, x), net.ints(0, TOKENS, 3, HEADS, WIDTH))
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    parts = net.split("Split", qkv, net.ints(1, 1, 1), names=["s0", "s1", "s2"], axis=0)
    q, k, v = (net.op("Squeeze", p, net.ints(0)) for p in parts)
    finish(net, products(net, q, k), v, x)
    return net


def bias_initializer() -> Net:
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    bias = net.weight(1, HEADS, TOKENS, TOKENS, name="bias")
    finish(net, net.op("Add", products(net, q, k), bias), v, x)
    return net


def bias_table() -> Net:
    """As Swin: rows of a table (positions, heads) by a constant index."""
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    places = np.add.outer(np.arange(TOKENS), -np.arange(TOKENS)).ravel() + TOKENS - 1
    bias = net.op("Gather", net.weight(2 * TOKENS - 1, HEADS, name="bias"), net.constant(places))
    bias = net.op("Reshape", bias, net.ints(TOKENS, TOKENS, -1))
    bias = net.op("Unsqueeze", net.op("Transpose", bias, perm=[2, 0, 1]), net.ints(0))
    finish(net, net.op("Add", products(net, q, k), bias), v, x)
    return net


def windows(net: Net, x: str) -> str:
    """(batch, 4, 4, model) as (windows, 4 tokens, model)."""
    x = net.op("Reshape", x, net.ints(2, 2, 2, 2, 2, MODEL))
    x = net.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
    return net.op("Reshape", x, net.ints(-1, TOKENS, MODEL))


def images(net: Net, x: str) -> str:
    x = net.op("Reshape", x, net.ints(2, 2, 2, 2, 2, MODEL))
    return net.op("Reshape", net.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5]), net.ints(2, 4, 4, -1))


def windowed(net: Net, windows: str) -> str:
    """Attention in each of eight windows, a mask per window written by ScatterND."""
    q, k, v = projections(net, windows)
    zeros = net.op("ConstantOfShape", net.ints(TOKENS, TOKENS, TOKENS))
    rows, far = net.constant(np.array([[1], [3]])), net.weight(2, TOKENS, TOKENS, name="far")
    mask = net.op("ScatterND", zeros, rows, far)
    mask = net.op("Unsqueeze", mask, net.ints(0, 2))
    scores = net.op("Reshape", products(net, q, k), net.ints(-1, 4, HEADS, TOKENS, TOKENS))
    scores = net.op("Reshape", net.op("Add", scores, mask), net.ints(-1, HEADS, TOKENS, TOKENS))
    a = net.op("Softmax", scores, axis=-1)
    return biased(net, merged(net, net.op("MatMul", a, v)), MODEL, MODEL, "o")


def rest(net: Net, z: str, x: str) -> Net:
    x = net.op("Add", z, x)
    h = net.op("Tanh", biased(net, x, MODEL, HIDDEN, "up"))
    net.op("Add", x, biased(net, h, HIDDEN, MODEL, "down"), name="y")
    return net


def rolled(net: Net, x: str, axis: int, by: int) -> str:
    head = net.op("Slice", x, net.ints(by), net.ints(2**63 - 1), net.ints(axis))
    return net.op(
        "Concat", head, net.op("Slice", x, net.ints(0), net.ints(by), net.ints(axis)), axis=axis
    )


def windows_rolled_by_slices() -> Net:
    net = Net()
    x = net.input(2, 4, 4, MODEL)
    z = windowed(net, windows(net, rolled(net, rolled(net, x, 1, 1), 2, 1)))
    return rest(net, rolled(net, rolled(net, images(net, z), 1, 3), 2, 3), x)


def windows_rolled_by_indices() -> Net:
    net = Net()
    x = net.input(2, 4, 4, MODEL)
    z = x
    for axis in (1, 2):
        z = net.op("Gather", z, net.ints(1, 2, 3, 0), axis=axis)
    z = images(net, windowed(net, windows(net, z)))
    for axis in (1, 2):
        z = net.op("Gather", z, net.ints(3, 0, 1, 2), axis=axis)
    return rest(net, z, x)


def windows_as_strided() -> Net:
    """The whole tensor flattened, and gathered by one index of the windows' shape."""
    net = Net()
    x = net.input(2, 4, 4, MODEL)
    places = np.arange(2 * 16 * MODEL).reshape(2, 2, 2, 2, 2, MODEL).transpose(0, 1, 3, 2, 4, 5)
    flat = net.op("Reshape", x, net.ints(-1))
    windows = net.op("Gather", flat, net.constant(places.reshape(8, TOKENS, MODEL)), axis=0)
    return rest(net, images(net, windowed(net, windows)), x)


# Fewer heads of keys and values, rotations, other statistics

GROUPS = 2
KV = HEADS
QUERIES = GROUPS * KV


def grouped(copy: Callable[[Net, str], str], kv: int = KV) -> Net:
    net = Net()
    x = tokens(net)
    q = heads(net, biased(net, x, MODEL, QUERIES * WIDTH, "q"), QUERIES)
    k, v = (copy(net, heads(net, biased(net, x, MODEL, kv * WIDTH, n), kv)) for n in ("k", "v"))
    a = net.op("Softmax", products(net, q, k), axis=-1)
    z = merged(net, net.op("MatMul", a, v), hidden=QUERIES * WIDTH)
    residual(net, z, x, QUERIES * WIDTH)
    return net


def grouped_queries() -> Net:
    def copied(net: Net, x: str) -> str:
        x = net.op("Unsqueeze", x, net.ints(2))
        x = net.op("Expand", x, net.ints(1, KV, GROUPS, TOKENS, WIDTH))
        return net.op("Reshape", x, net.ints(-1, QUERIES, TOKENS, WIDTH))

    return grouped(copied)


def grouped_queries_tiled() -> Net:
    def copied(net: Net, x: str) -> str:
        x = net.op("Unsqueeze", x, net.ints(2))
        x = net.op("Tile", x, net.ints(1, 1, GROUPS, 1, 1))
        return net.op("Reshape", x, net.ints(0, QUERIES, TOKENS, WIDTH))

    return grouped(copied)


def grouped_queries_gathered() -> Net:
    """As repeat_interleave: each head by its index, twice."""
    index = np.repeat(np.arange(KV), GROUPS)
    return grouped(lambda net, x: net.op("Gather", x, net.constant(index), axis=1))


def one_kv_head() -> Net:
    return grouped(lambda net, x: net.op("Expand", x, net.ints(1, QUERIES, TOKENS, WIDTH)), kv=1)


def talking_heads() -> Net:
    """Heads are mixed before and after softmax, by matrices over the axis of heads."""
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    s = net.op("Transpose", products(net, q, k), perm=[0, 2, 3, 1])
    s = net.op("Transpose", biased(net, s, HEADS, HEADS, "before"), perm=[0, 3, 1, 2])
    a = net.op("Softmax", s, axis=-1)
    a = net.conv(a, HEADS, HEADS, 1, 1, name="after")
    residual(net, merged(net, net.op("MatMul", a, v)), x)
    return net


def cross_covariance() -> Net:
    """XCA: the softmax runs over the width of the keys, so that it stays there."""
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    q, k, v = (net.op("Transpose", t, perm=[0, 1, 3, 2]) for t in (q, k, v))
    a = net.op("Softmax", products(net, q, k), axis=-1)
    z = net.op("Transpose", net.op("MatMul", a, v), perm=[0, 3, 1, 2])
    residual(net, net.op("Reshape", z, net.ints(0, TOKENS, MODEL)), x)
    return net


def linear_attention() -> Net:
    """The softmax of q runs over the width, that of k over the tokens."""
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    q, k = net.op("Softmax", q, axis=-1), net.op("Softmax", k, axis=2)
    context = net.op("MatMul", net.op("Transpose", k, perm=[0, 1, 3, 2]), v)
    residual(net, merged(net, net.op("MatMul", q, context)), x)
    return net


def normalised_queries() -> Net:
    """Cosine attention, as Swin v2: the norm over the width keeps it, a scale per head passes."""
    net = Net()
    x = tokens(net)
    q, k, v = projections(net, x)
    q, k = (
        net.op("Div", t, net.op("Clip", net.op("ReduceL2", t, axes=[-1]), net.weight(low=1)))
        for t in (q, k)
    )
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    finish(net, net.op("Mul", scores, net.weight(HEADS, 1, 1, name="scale")), v, x)
    return net


def rotated(rotate: Callable[[Net, str], str]) -> Net:
    """Heads of width 4: two pairs."""
    net = Net()
    x = tokens(net)
    hidden = 4 * HEADS
    q, k, v = (heads(net, biased(net, x, MODEL, hidden, n)) for n in "qkv")
    angles = [net.weight(TOKENS, 4, name=n) for n in ("cos", "sin")]
    q, k = (
        net.op("Add", net.op("Mul", t, angles[0]), net.op("Mul", rotate(net, t), angles[1]))
        for t in (q, k)
    )
    a = net.op("Softmax", products(net, q, k), axis=-1)
    residual(net, merged(net, net.op("MatMul", a, v), hidden=hidden), x, hidden)
    return net


def rotary_halves() -> Net:
    def rotate(net: Net, x: str) -> str:
        low = net.op("Slice", x, net.ints(0), net.ints(2), net.ints(3))
        high = net.op("Slice", x, net.ints(2), net.ints(2**63 - 1), net.ints(3))
        return net.op("Concat", net.op("Neg", high), low, axis=-1)

    return rotated(rotate)


def rotary_interleaved() -> Net:
    def rotate(net: Net, x: str) -> str:
        even, odd = (
            net.op("Slice", x, net.ints(i), net.ints(2**63 - 1), net.ints(3), net.ints(2))
            for i in (0, 1)
        )
        even, odd = (net.op("Unsqueeze", t, net.ints(-1)) for t in (even, net.op("Neg", odd)))
        pairs = net.op("Concat", odd, even, axis=-1)
        return net.op("Reshape", pairs, net.ints(0, HEADS, TOKENS, 4))

    return rotated(rotate)

"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from irprune.backends.torch.lowering import layers
from irprune.backends.torch.lowering.attention import attention
from irprune.backends.torch.lowering.conv import tensors

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering


def _gemm(low: Lowering, node: ir.Node) -> fx.Node:
    """A plain one is a linear layer; `fuse` made those of MatMul and Add into this one too."""
    weight, bias = low.input(node, 1), low.input(node, 2)
    assert weight is not None
    rows = bool(low.integer(node, "transB", 0))
    alpha, beta = low.real(node, "alpha", 1.0), low.real(node, "beta", 1.0)
    plain = alpha == 1 and (beta == 1 or bias is None) and not low.integer(node, "transA", 0)
    fits = bias is None or (low.held(bias) and low.rank(bias) == 1)
    dims = low.dims(weight)
    outer, inner = (dims[0], dims[1]) if rows else (dims[1], dims[0])
    fits = fits and (bias is None or low.dims(bias) == [outer])
    sized = isinstance(outer, int) and isinstance(inner, int)
    if not (plain and fits and sized and low.held(weight)):
        return _product(low, node, rows, alpha, beta)
    assert isinstance(outer, int) and isinstance(inner, int)
    layer: nn.Module = layers.ColumnLinear(bias is not None)
    if rows:
        layer = nn.Linear(inner, outer, bias is not None, device="meta")
    return low.layer(node, layer, tensors(weight, bias), low.data(node))


def _product(low: Lowering, node: ir.Node, rows: bool, alpha: float, beta: float) -> fx.Node:
    a, b = low.data(node, 0), low.data(node, 1)
    a = low.method("t", a) if low.integer(node, "transA", 0) else a
    made = low.call(torch.matmul, a, low.method("t", b) if rows else b)
    if alpha != 1:
        made = low.call(torch.mul, made, alpha)
    bias = low.input(node, 2)
    if bias is None or beta == 0:
        return made
    if beta != 1:
        return low.call(torch.add, made, low.tensor(bias), alpha=beta)
    return low.call(torch.add, made, low.tensor(bias))


def _matmul(low: Lowering, node: ir.Node) -> fx.Node:
    weight = low.input(node, 1)
    if weight is not None and low.held(weight) and low.rank(weight) == 2:
        return low.layer(node, layers.ColumnLinear(False), {"weight": weight}, low.data(node))
    fused = attention(low, node) if low.fused else None
    if fused is not None:
        return fused
    return low.call(torch.matmul, low.data(node, 0), low.data(node, 1))


def _einsum(low: Lowering, node: ir.Node) -> fx.Node:
    equation = low.text(node, "equation", "")
    return low.call(torch.einsum, equation, *[low.data(node, k) for k in range(len(node.inputs))])


RULES: dict[str, Rule] = {"Gemm": _gemm, "MatMul": _matmul, "Einsum": _einsum}
FUSED: dict[str, Rule] = {"Linear": _gemm}

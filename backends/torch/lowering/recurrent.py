"""Recurrent layers: torch's kernels on weights that stay as ONNX has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from irprune.backends.torch.lowering.lower import Unsupported

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.backends.torch.lowering import Rule
    from irprune.backends.torch.lowering.lower import Lowering

_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""The gates of ONNX (input output forget cell; update reset hidden) in the order of torch."""
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def _recurrent(low: Lowering, node: ir.Node) -> tuple[fx.Node, ...]:
    kind = node.op_type
    direction = low.text(node, "direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    usual = _ACTIVATIONS[kind] * count
    named = node.attributes.get("activations")
    if named is not None and [text.title() for text in named.as_strings()] != usual:
        raise Unsupported(f"its activations are {list(named.as_strings())}")
    if any(name in node.attributes for name in ("clip", "activation_alpha", "activation_beta")):
        raise Unsupported("its activations have parameters")
    if low.integer(node, "layout", 0) or low.integer(node, "input_forget", 0):
        raise Unsupported("its layout is batch first, or input_forget is set")
    if low.input(node, 4) is not None or low.input(node, 7) is not None:
        raise Unsupported("it has sequence lengths or peepholes")
    if kind == "GRU" and not low.integer(node, "linear_before_reset", 0):
        raise Unsupported("it resets before the linear part, which torch's GRU does not")
    parts: list[Any] = [
        None if low.input(node, k) is None else low.data(node, k) for k in (0, 1, 2, 3, 5, 6)
    ]
    made = low.call(recurrent, kind, direction, *parts)
    return tuple(low.call(_item, made, k) for k in range(len(node.outputs)))


def _item(parts: Any, index: int) -> Any:
    return parts[index]


def recurrent(
    kind: str,
    direction: str,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    h: Tensor | None,
    c: Tensor | None,
) -> tuple[Tensor, ...]:
    """Run an LSTM or GRU over ``(T, N, I)``; returns ``(T, directions, N, H)`` and last states."""
    order, hidden, count = _ORDER[kind], r.shape[2], w.shape[0]

    def turned(gates: Tensor) -> Tensor:
        """Reorder the gates along the first axis."""
        return torch.cat([gates[k * hidden : (k + 1) * hidden] for k in order])

    weights = []
    for k in range(count):
        weights += [turned(w[k]), turned(r[k])]
        if b is not None:
            weights += [turned(part) for part in b[k].chunk(2)]
    zeros = x.new_zeros(count, x.shape[1], hidden)
    x = x.flip(0) if direction == "reverse" else x
    h = zeros if h is None else h
    settings = (weights, b is not None, 1, 0.0, False, count == 2, False)
    states: list[Tensor]
    if kind == "LSTM":
        y, *states = torch.lstm(x, (h, zeros if c is None else c), *settings)
    else:
        y, *states = torch.gru(x, h, *settings)
    y = y.view(*y.shape[:2], count, hidden).permute(0, 2, 1, 3)
    return (y.flip(0) if direction == "reverse" else y, *states)


RULES: dict[str, Rule] = {"LSTM": _recurrent, "GRU": _recurrent}

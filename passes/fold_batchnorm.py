"""`fold-batchnorm`: what scales and shifts the channels of a layer goes into its weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from irprune.passbase import Context, Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.model import Model

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """Fold BatchNormalization, and per-channel Mul and Add, into the layer before them."""

    name: ClassVar[str] = "fold-batchnorm"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        """Fold into Conv, ConvTranspose and Gemm whose output and weights nothing else reads.

        Weights and biases keep their names. A layer without bias takes over the shift of the
        BatchNormalization, or the added constant, under its name. The output keeps the name of
        the folded node's output. Raises IrpruneError where channels are already selected or gone.
        """
        from irprune import tidy

        tidy.require_full_width(model, self.name)
        counts: Counter[str] = Counter()
        for node in list(model.ir.graph):
            if node.op_type in ("Conv", "ConvTranspose", "Gemm") and not node.domain:
                while folded := _fold_next(node):
                    counts[folded] += 1
        if counts:
            tidy.remove_dead(model.ir)
        return dict(counts)


@dataclass(frozen=True)
class _Affine:
    """y = x * scale + shift along the channels, each of shape ``(channels,)``."""

    scale: Array
    shift: Array
    holder: ir.Value
    """The initializer that can hold the bias of a layer which has none."""


def _fold_next(layer: ir.Node) -> str | None:
    """Fold the node after a layer into it; return its op type, None where it stays."""
    from irprune import tidy

    output, weight = layer.outputs[0], layer.inputs[1]
    if not tidy.only_use(output) or not _own_weight(weight):
        return None
    assert weight is not None and weight.const_value is not None
    (use,) = output.uses()
    follower = use.node
    if follower.graph is not layer.graph or follower.domain:
        return None
    old = _float64(weight)
    by_channel = _by_channel(layer, old)
    affine = _affine(follower, output, len(by_channel), old.ndim)
    bias = _bias(layer, len(by_channel))
    if affine is None or bias is None:
        return None
    dtype = weight.const_value.numpy().dtype
    scale = affine.scale.reshape(-1, *[1] * (by_channel.ndim - 1))
    scaled = _from_channels(layer, by_channel * scale, old).astype(dtype)
    shifted = (bias * affine.scale + affine.shift).astype(dtype)
    if not (np.isfinite(scaled).all() and np.isfinite(shifted).all()):
        return None
    former, name = follower.outputs[0], follower.outputs[0].name
    tidy.take_over(output, former)
    assert follower.graph is not None
    follower.graph.remove(follower, safe=True)
    output.name = name
    _store(weight, scaled)
    if shifted.any() or len(layer.inputs) > 2:
        _set_bias(layer, affine.holder, shifted)
    return follower.op_type

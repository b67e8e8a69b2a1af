"""Whether torch computes what onnxruntime does: every network that the op rules are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from irprune.backends.torch import to_torch
from irprune.errors import IrpruneError
from irprune.model import Model

Arrays = Mapping[str, npt.NDArray[Any]]

REFUSED = ("BitShift",)
"""Ops that no lowering has, or types of theirs that torch lacks."""


def lowered_outputs(model: Model, proto: onnx.ModelProto, feeds: Arrays) -> Arrays:
    """Return the outputs of the lowered model by name; none where it is refused for an op above.

    Gradients are taken as well: torch raises where an activation overwrote what they need.
    """
    kinds = {node.op_type for node in proto.graph.node}
    try:
        module = to_torch(model)
    except IrpruneError:
        if kinds.isdisjoint(REFUSED):
            raise
        return {}
    assert kinds.isdisjoint(REFUSED), "torch takes an op that the list calls refused"
    order = [value.name for value in proto.graph.input if value.name in feeds]  # weights may be too
    made = module(*(torch.from_numpy(np.array(feeds[name])) for name in order))
    outputs = made if isinstance(made, tuple) else (made,)
    for trained in (output.sum() for output in outputs if output.requires_grad):
        trained.backward(retain_graph=True)
    names = (value.name for value in proto.graph.output)
    return {name: tensor.detach().numpy() for name, tensor in zip(names, outputs, strict=True)}

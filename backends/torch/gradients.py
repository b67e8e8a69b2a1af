"""Derivatives of a classifier's loss by its activations and weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.nn import functional

from irprune.backends.torch import to_torch
from irprune.backends.torch.logits import before_softmax
from irprune.backends.torch.lowering.module import VALUES, Lowered
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.training import LabelError


class TorchDifferentiator:
    """A `Differentiator` that lowers the model, once for as long as it and its weights stay."""

    def __init__(self) -> None:
        self._last: tuple[list[object], bool, Lowered] | None = None

    def gradients(
        self,
        model: Model,
        feeds: Mapping[str, NDArray[Any]],
        labels: NDArray[Any],
        names: Sequence[str],
    ) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Return value and gradient of named activations and weights.

        Weights that are not trained are left out, and activations that torch has no counterpart of.

        Raises:
            IrpruneError: the first output is no array ``(n, classes)``.
            LabelError: a label is none of these classes.
        """
        module = self._lowered(model, fused=model.ir.graph.initializers.keys() >= set(names))
        nodes = module.meta[VALUES]
        weights = dict(module.named_parameters())
        recorder = _Recorder(module, {nodes[n] for n in names if n in nodes})
        arrays = [feeds[value.name or ""] for value in model.ir.graph.inputs]
        with torch.enable_grad():
            output = recorder.run(*(torch.from_numpy(np.array(array)) for array in arrays))
            logits = output[0] if isinstance(output, tuple) else output
            if logits.ndim != 2:
                reason = f"the first output has shape {[*logits.shape]} and holds no classes"
                raise IrpruneError(reason, mend="choose a criterion that needs no labels")
            classes = logits.shape[1]
            wrong = labels[(labels < 0) | (labels >= classes)]
            if wrong.size:
                mend = f"give class numbers from 0 to {classes - 1}"
                raise LabelError(f"label {wrong[0]} is no class of the model", mend=mend)
            target = torch.from_numpy(np.array(labels, np.int64))
            loss = functional.cross_entropy(logits.float(), target, reduction="sum")
            found = {n: recorder.found[nodes[n]] for n in names if n in nodes}
            found |= {n: weights[n] for n in names if n in weights}
            if not found:
                return {}
            slopes = torch.autograd.grad(loss, list(found.values()), materialize_grads=True)
        return {
            name: (tensor.detach().numpy().copy(), slope.numpy())
            for (name, tensor), slope in zip(found.items(), slopes, strict=True)
        }

    def _lowered(self, model: Model, fused: bool) -> Lowered:
        parts = [model, *model.tensors().values()]  # held, so that no other one takes their place
        if self._last is not None:
            known, how, module = self._last
            if how == fused and list(map(id, known)) == list(map(id, parts)):
                return module
        module = to_torch(before_softmax(model), inplace=False, fused=fused)
        self._last = parts, fused, module
        return module


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps the results of some nodes, to take derivatives by them."""

    def __init__(self, module: fx.GraphModule, wanted: Collection[str]) -> None:
        super().__init__(module)
        self._wanted = wanted
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self._wanted:
            if result.is_leaf:
                result.requires_grad_()
            self.found[n.name] = result
        return result

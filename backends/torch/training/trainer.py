"""A `Trainer` on torch: lowers a model, trains it, writes the weights back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from irprune.backends.torch import to_torch
from irprune.backends.torch.training.data import Data, Draw
from irprune.backends.torch.training.data.source import check_fit, fingerprint
from irprune.backends.torch.training.fresh import draw_weights
from irprune.backends.torch.training.loop import Job, fabric_of, scored, train
from irprune.errors import IrpruneError, naming
from irprune.model import Model
from irprune.recipe import Distillation, Machine, Recipe
from irprune.training import Fitted, Score
from irprune.walk import dims_of


class TorchTrainer:
    """See `irprune.training.Trainer`."""

    def __init__(
        self,
        data: Data,
        recipe: Recipe,
        machine: Machine,
        log: Callable[[str], None],
        path: Path | str | None = None,
    ) -> None:
        """Train on `data`, which errors call by its `path`."""
        self._data, self._recipe, self._machine, self._log = data, recipe, machine, log
        self._path = path

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self._data)

    def initialise(self, model: Model, seed: int) -> None:
        module = to_torch(model)
        with torch.random.fork_rng(), naming(model.provenance.path):
            torch.manual_seed(seed)
            draw_weights(module)
        model.update_from(module)

    def fit(
        self,
        model: Model,
        folder: Path,
        *,
        first: int = 0,
        last: int | None = None,
        keep: Sequence[int] = (),
        teacher: Model | None = None,
    ) -> Fitted:
        data = self.fitting(model)
        module = to_torch(model)

        def after_epoch(epoch: int) -> None:
            if epoch in keep:
                kept = model.clone()
                kept.update_from(module)
                kept.save(folder / f"epoch-{epoch}.onnx")

        folder.mkdir(parents=True, exist_ok=True)
        if first in keep:
            model.save(folder / f"epoch-{first}.onnx")
        rows = train(
            Job(
                module,
                data,
                self._recipe if teacher is not None else _alone(self._recipe),
                folder,
                self._machine,
                first,
                last,
                None if teacher is None else to_torch(teacher),
                after_epoch,
                self._log,
                least=max(keep, default=0),
            )
        )
        model.update_from(module)
        score = Score(rows[-1]["accuracy"], rows[-1]["loss"]) if rows else self.score(model)
        return Fitted(score, len(rows))

    def score(self, model: Model) -> Score:
        data = self.fitting(model)
        fabric = fabric_of(self._machine)
        return scored(fabric.setup_module(to_torch(model)), data, fabric, self._machine)

    def sample(
        self, model: Model, count: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        data = self.fitting(model)
        if count > data.size("train"):
            reason = f"{count} samples of {data.size('train')} training examples"
            raise IrpruneError(reason, file=self._path, mend="ask for fewer samples")
        index = np.random.default_rng((seed, 1)).permutation(data.size("train"))[:count]
        ((x, y),) = data.batches("train", [Draw(index)], torch.device("cpu"))
        return x.numpy(), y.numpy()

    def fitting(self, model: Model) -> Data:
        """Return the data as the model takes it (IrpruneError: no fit)."""
        with naming(model.provenance.path):
            shape, classes = _taken(model)
        with naming(self._path):
            flat = check_fit(self._data, shape, classes)
        return _Flat(self._data) if flat else self._data


def _taken(model: Model) -> tuple[tuple[int | None, ...], int | None]:
    """Return the shape of one example, batch excluded, and the number of classes, where known."""
    inputs, outputs = model.ir.graph.inputs, model.ir.graph.outputs
    if len(inputs) != 1:
        raise IrpruneError(f"the model has {len(inputs)} inputs; training feeds one")
    dims, last = dims_of(inputs[0]) or [], dims_of(outputs[0]) or []
    if not dims or isinstance(dims[0], int):
        raise IrpruneError(
            f"input {inputs[0].name} has the fixed batch {dims[0] if dims else '?'}",
            mend="export the model with a dynamic batch",
        )
    shape = tuple(dim if isinstance(dim, int) else None for dim in dims[1:])
    return shape, last[-1] if last and isinstance(last[-1], int) else None


def _alone(recipe: Recipe) -> Recipe:
    """Return a recipe without a teacher."""
    return replace(recipe, distillation=Distillation())


class _Flat:
    """Data whose examples are laid out in one row."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.classes = data.classes
        self.shape = (int(np.prod(data.shape)),)

    def size(self, split: Any) -> int:
        return self._data.size(split)

    def batches(self, split: Any, draws: Any, device: torch.device) -> Any:
        for x, y in self._data.batches(split, draws, device):
            yield x.flatten(1), y

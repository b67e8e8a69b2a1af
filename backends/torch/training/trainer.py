"""A `Trainer` on torch: lowers a model, trains it, writes the weights back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from irprune.atomic import make_folder
from irprune.backends.torch import to_torch
from irprune.backends.torch.logits import before_softmax
from irprune.backends.torch.lowering.module import Lowered
from irprune.backends.torch.training.data import Data, Draw
from irprune.backends.torch.training.data.source import check_fit, fingerprint
from irprune.backends.torch.training.fixed import check_any_batch
from irprune.backends.torch.training.fresh import draw_weights
from irprune.backends.torch.training.loop import Job, fabric_of, train
from irprune.backends.torch.training.memory import memory_for
from irprune.backends.torch.training.repeatable import repeatable
from irprune.backends.torch.training.scoring import Scoring
from irprune.backends.torch.training.starts import starts
from irprune.dropout import left_out
from irprune.errors import IrpruneError, listed, naming
from irprune.launch import check_processes
from irprune.model import Model
from irprune.multipliers import Multipliers, multipliers
from irprune.queries import dims_of
from irprune.recipe import Distillation, Machine, Recipe
from irprune.training import Fitted, Score

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


class TorchTrainer:
    """See `irprune.training.Trainer`."""

    def __init__(
        self,
        data: Data,
        recipe: Recipe,
        machine: Machine,
        log: Callable[[str], None],
    ) -> None:
        check_processes(machine)  # before one of them, too many, takes a folder
        self._data, self._recipe, self._machine, self._log = data, recipe, machine, log
        self._said: set[str] = set()

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self._data)

    def initialise(self, model: Model, seed: int) -> None:
        module = to_torch(model)
        with torch.random.fork_rng(), naming(model.provenance.path):
            torch.manual_seed(seed)
            draw_weights(module, starts(model.ir.graph))
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
        module = _trained(model, data)
        _check_written_back(model, module)
        with naming(model.provenance.path):
            factors = multipliers(model.ir.graph)
        self._freeze(module, factors)
        if dropouts := left_out(model.ir):
            self._say(f"train: Dropout is left out, in training too (layers: {dropouts})")

        def after_epoch(epoch: int) -> None:
            if epoch in keep:
                kept = model.clone()
                kept.update_from(module)
                kept.save(folder / f"epoch-{epoch}.onnx")

        make_folder(folder)
        if first in keep:
            model.save(folder / f"epoch-{first}.onnx")
        job = Job(
            module,
            data,
            self._recipe if teacher is not None else _alone(self._recipe),
            folder,
            self._machine,
            first,
            last,
            None if teacher is None else self._teaching(teacher),
            after_epoch,
            self._log,
            least=max(keep, default=0),
            multipliers=factors,
        )
        with naming(model.provenance.path):
            rows = train(job)
        model.update_from(module)
        score = Score(rows[-1]["accuracy"], rows[-1]["loss"]) if rows else self.score(model)
        return Fitted(score, len(rows))

    def score(self, model: Model) -> Score:
        data, fabric = self.fitting(model), fabric_of(self._machine)
        with (
            naming(model.provenance.path),
            memory_for("the network", "take a smaller network"),
            repeatable(self._machine, fabric),
        ):
            module = fabric.setup_module(_trained(model, data))
            score = Scoring(data, fabric, self._machine, self._log).of(module)
            if not isfinite(score.loss):
                mend = "train it with a lower learning rate, or mend weights that are not finite"
                raise IrpruneError(f"the loss on the test split is {score.loss}", mend=mend)
        return score

    def sample(
        self, model: Model, count: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        data = self.fitting(model)
        if count > data.size("train"):
            reason = f"{count} samples of {data.size('train')} training examples"
            raise IrpruneError(reason, file=self._data.file, mend="ask for fewer samples")
        index = np.random.default_rng((seed, 1)).permutation(data.size("train"))[:count]
        device = fabric_of(self._machine).device  # where arrays live: they would move both ways
        with memory_for(f"a sample of {count} examples", "ask for fewer samples"):
            ((x, y),) = data.batches("train", [Draw(index)], device)
        return x.cpu().numpy(), y.cpu().numpy()

    def _say(self, message: str) -> None:
        """Log what holds for each training of a network, the first time."""
        if message not in self._said:
            self._log(message)
            self._said.add(message)

    def _freeze(self, module: Lowered, factors: Mapping[str, Multipliers]) -> None:
        """Freeze what has the learning rate 0; say so, and which rates cannot be followed."""
        trained = dict(module.named_parameters())
        frozen = sorted(name for name, by in factors.items() if by.lr == 0 and name in trained)
        for name in frozen:
            trained[name].requires_grad_(False)
        if frozen:
            self._say(f"train: frozen by lr_mult: {listed(frozen)}")
        if lost := sorted(name for name, by in factors.items() if by.lr and name not in trained):
            self._say(f"train: lr_mult is not followed where nothing trains: {listed(lost)}")

    def _teaching(self, teacher: Model) -> nn.Module:
        """Return a network of the student's examples, whether or not these are laid out in rows."""
        try:
            data = self.fitting(teacher)
        except IrpruneError as error:
            reason = f"the teacher does not fit: {error.reason}"
            raise IrpruneError(reason, file=error.file, mend=error.mend) from error
        return nn.Sequential(_Reshape(data.shape), _trained(teacher, data))

    def fitting(self, model: Model) -> Data:
        """Return the data as the model takes it (IrpruneError: no fit)."""
        with naming(model.provenance.path):
            inputs, outputs = model.ir.graph.inputs, model.ir.graph.outputs
            if len(inputs) != 1:
                raise IrpruneError(f"the model has {len(inputs)} inputs; training feeds one")
            shape, classes = _fed(inputs[0]), _classes(outputs[0])
            return _Flat(self._data) if check_fit(self._data, shape, classes) else self._data


def _fed(value: ir.Value) -> tuple[int | None, ...]:
    """Return the shape of one example (IrpruneError: the input takes no batches of floats)."""
    dims = dims_of(value) or []
    if value.dtype not in (None, ir.DataType.FLOAT):
        reason = f"input {value.name} takes {value.dtype}; training feeds FLOAT"
        raise IrpruneError(reason, mend="export the model in float32")
    if not dims:
        reason = f"input {value.name} has no axis for the batch"
        raise IrpruneError(reason, mend="export the model with a dynamic batch")
    return tuple(dim if isinstance(dim, int) else None for dim in dims[1:])


def _classes(value: ir.Value) -> int | None:
    """Return how many classes an output tells apart, where it says so (IrpruneError: none)."""
    dims = dims_of(value)
    if (dims is not None and len(dims) != 2) or value.dtype not in (None, *_FLOATS):
        shape = "?" if dims is None else "x".join(map(str, dims)) or "scalar"
        reason = f"output {value.name} is {value.dtype} {shape}"
        raise IrpruneError(reason, mend="end the model with (n, classes) logits")
    last = None if dims is None else dims[1]
    return last if isinstance(last, int) else None


def _trained(model: Model, data: Data) -> Lowered:
    """Return the network whose first output are logits (IrpruneError: it takes one batch alone)."""
    module = to_torch(before_softmax(model))
    batch = (dims_of(model.ir.graph.inputs[0]) or [None])[0]
    with naming(model.provenance.path):
        fixed = batch if isinstance(batch, int) else None
        check_any_batch(module, data.shape, data.classes, fixed)
    return module


def _check_written_back(model: Model, module: Lowered) -> None:
    """Raise IrpruneError, before any training, where a weight has no place in the file."""
    computed = sorted(module.state_dict().keys() - model.tensors().keys())
    if computed:
        reason = f"nodes compute the weight {computed[0]}, which no initializer holds"
        mend = "normalize the model first"
        raise IrpruneError(reason, file=model.provenance.path, mend=mend)


def _alone(recipe: Recipe) -> Recipe:
    """Return a recipe without a teacher."""
    return replace(recipe, distillation=Distillation())


class _Reshape(nn.Module):
    """Gives examples their shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self._shape)


class _Flat:
    """Data whose examples are laid out in one row."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.classes, self.file = data.classes, data.file
        self.shape = (int(np.prod(data.shape)),)

    def size(self, split: Any) -> int:
        return self._data.size(split)

    def batches(self, split: Any, draws: Any, device: torch.device) -> Any:
        for x, y in self._data.batches(split, draws, device):
            yield x.flatten(1), y

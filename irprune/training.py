"""What iterative pruning needs from whoever trains: the protocol, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from irprune.errors import CheckFailed, IrpruneError

if TYPE_CHECKING:
    from irprune.model import Model


class Diverged(CheckFailed):
    """The loss is no number any more; the last good checkpoint is kept."""


class LabelError(IrpruneError):
    """Labels are no classes of the model's first output."""


@dataclass(frozen=True)
class Score:
    """What a model does on the test split."""

    accuracy: float
    """Top-1, in [0, 1]."""
    loss: float


@dataclass(frozen=True)
class Fitted:
    """What training reached: the score after its last epoch, and the epochs it took."""

    score: Score
    epochs: int


class Differentiator(Protocol):
    """Takes derivatives of a classifier's loss."""

    def gradients(
        self,
        model: Model,
        feeds: Mapping[str, NDArray[Any]],
        labels: NDArray[Any],
        names: Sequence[str],
    ) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Return value and gradient of the named activations and initializers.

        What is not trained is left out, as is what the backend computes inside another operation.

        The loss is the cross-entropy of the first graph output ``(n, classes)``, or of the logits
        before it where that is a Softmax, summed over the examples, in eval mode: the gradient of
        an activation is each example's own.

        Raises:
            IrpruneError: the first output has another shape.
            LabelError: a label is no class of it.
        """
        ...


class Trainer(Protocol):
    """Trains and scores models on one data set under one recipe."""

    def fingerprint(self) -> dict[str, Any]:
        """Return what tells the data set from others, as JSON; where it lies is no part of it."""
        ...

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
        """Train `model` in place from epoch `first` of the recipe up to `last` (None: its end).

        Order of examples, augmentation and learning rate are those of these epochs. The model
        after each epoch in `keep` is written to ``folder/epoch-N.onnx``; the recipe's target ends
        training after the last of these at the earliest. Without a `teacher` there is no
        distillation. `folder` also holds the checkpoint from which a call with the same arguments
        goes on where a killed one stopped.

        Raises:
            IrpruneError: model and data do not fit, or not even one example fits into memory.
            Diverged: the loss is NaN or infinite.
        """
        ...

    def score(self, model: Model) -> Score:
        """Return accuracy and loss of a model on the test split."""
        ...

    def sample(self, model: Model, count: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return training examples ``(count, ...)`` and labels drawn by `seed`, not augmented."""
        ...

    def initialise(self, model: Model, seed: int) -> None:
        """Draw the weights of `model` anew, each layer as the backend usually does.

        Raises:
            IrpruneError: the backend does not know how a weight is drawn.
        """
        ...

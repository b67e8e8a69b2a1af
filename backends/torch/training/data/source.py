"""What the training loop asks of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from irprune.errors import IrpruneError

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Draw:
    """One batch to fetch: which examples, and the seed of their augmentation (None: as they are).

    The seed depends on the step alone, so a resumed run sees the same pictures.
    """

    indices: NDArray[np.int64]
    seed: int | None = None


class Data(Protocol):
    """Labelled examples in two splits."""

    @property
    def classes(self) -> int:
        """One more than the largest label."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example, without the batch."""
        ...

    def size(self, split: Split) -> int: ...

    def batches(
        self, split: Split, draws: Iterable[Draw], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield float32 examples ``(n, *shape)`` and int64 labels ``(n,)`` on a device."""
        ...


@runtime_checkable
class Hashed(Protocol):
    """Data that can tell whether it is the same as some other."""

    def content_hash(self) -> str:
        """Return a hash of the examples, wherever they lie."""
        ...


def fingerprint(data: Data) -> dict[str, Any]:
    """Return what tells data sets apart, as JSON.

    Those of a factory need no hash: shape, classes and sizes are then all there is.
    """
    return {
        "shape": list(data.shape),
        "classes": data.classes,
        "train": data.size("train"),
        "test": data.size("test"),
        "content": data.content_hash() if isinstance(data, Hashed) else None,
    }


def check_labels(labels: NDArray[Any], count: int, what: str, file: object) -> NDArray[np.int64]:
    """Return labels as int64 (IrpruneError unless there are `count` class numbers)."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        reason = f"{what} has shape {labels.shape} and type {labels.dtype}, not class numbers (n,)"
        raise IrpruneError(reason, file=str(file), mend="store one integer class per example")
    if len(labels) != count:
        reason = f"{what} has {len(labels)} labels for {count} examples"
        raise IrpruneError(reason, file=str(file))
    if not count:
        raise IrpruneError(f"{what} is empty", file=str(file))
    if labels.min() < 0:
        where = int(np.flatnonzero(labels < 0)[0])
        raise IrpruneError(f"{what}[{where}] = {labels[where]} is no class", file=str(file))
    return labels.astype(np.int64)


def check_fit(data: Data, shape: tuple[int | None, ...], classes: int | None) -> bool:
    """Return whether examples must be flattened for a model's input ``shape``, batch excluded.

    Raises:
        IrpruneError: the examples or the labels do not fit the model.
    """
    if classes is not None and data.classes > classes:
        raise IrpruneError(
            f"labels go up to {data.classes - 1}, the model tells {classes} classes apart",
            mend="give the model as many outputs as there are classes, or mend the labels",
        )
    fits = len(shape) == len(data.shape) and all(
        want in (None, have) for want, have in zip(shape, data.shape, strict=True)
    )
    if fits:
        return False
    if len(shape) == 1 and shape[0] in (None, int(np.prod(data.shape))):
        return True
    want = "x".join("?" if n is None else str(n) for n in shape)
    have = "x".join(map(str, data.shape))
    raise IrpruneError(
        f"examples are {have}, the model takes {want}",
        mend="channels come first, as in 3x32x32",
    )

"""What the training loop asks of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from irprune.errors import IrpruneError
from irprune.ranges import in_range

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Draw:
    """One batch to fetch: which examples, and the seed of their augmentation (None: as they are).

    The seed depends on recipe, step and process alone: a resumed run sees the same pictures.
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

    @property
    def file(self) -> str | None:
        """What messages name: where the examples lie, or who makes them."""
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

    def content_hash(self) -> str | None:
        """Return a hash of the examples, wherever they lie; None where nothing tells."""
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


def check_labels(
    labels: NDArray[Any], count: int, what: str, file: str | None
) -> NDArray[np.int64]:
    """Return labels as int64 (IrpruneError unless there are `count` class numbers)."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        reason = f"{what} has shape {labels.shape} and type {labels.dtype}, not class numbers (n,)"
        raise IrpruneError(reason, file=file, mend="store one integer class per example")
    if len(labels) != count:
        reason = f"{what} has {len(labels)} labels for {count} examples"
        raise IrpruneError(reason, file=file)
    if not count:
        raise IrpruneError(f"{what} is empty", file=file)
    numbers = labels.astype(np.int64)  # beyond its range they turn negative
    if numbers.min() < 0:
        where = int(np.flatnonzero(numbers < 0)[0])
        raise IrpruneError(f"{what}[{where}] = {labels[where]} is no class", file=file)
    return numbers


def per_channel(
    what: Literal["mean", "std"],
    values: tuple[float, ...],
    shape: tuple[int, ...],
    file: str | None,
) -> torch.Tensor:
    """Return one number per channel, to be broadcast to examples of a shape (IrpruneError)."""
    interval = {"mean": "(-inf, inf)", "std": "(0, inf)"}[what]
    for value in values:
        if not in_range(value, interval):
            raise IrpruneError(f"{what} = {value} must lie in {interval}", file=file)
    if len(values) != shape[0]:
        reason = f"{what} has {len(values)} numbers for {shape[0]} channels"
        raise IrpruneError(reason, file=file)
    return torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * (len(shape) - 1))


def check_fit(data: Data, shape: tuple[int | None, ...], classes: int | None) -> bool:
    """Return whether examples must be flattened for a model's input ``shape``, batch excluded.

    Raises:
        IrpruneError: the examples or the labels do not fit the model.
    """
    if classes is not None and data.classes > classes:
        raise IrpruneError(
            f"labels go up to {data.classes - 1}, the model tells {classes} classes apart",
            file=data.file,
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
    reason = f"examples are {have}, the model takes {want}"
    raise IrpruneError(reason, file=data.file, mend=_refitting(data.shape, shape))


def _refitting(have: tuple[int, ...], want: tuple[int | None, ...]) -> str | None:
    """Return how images are made to fit; None of others, and where the channels differ."""
    if len(want) != 3:
        return None
    if len(have) == 2 and want[0] in (1, None):
        return f"add an axis for the channel: {'x'.join(map(str, (1, *have)))}"
    if len(have) != 3:
        return None
    if have[-1] == want[0] != have[0]:
        return "channels come first, as in 3x32x32"
    if want[0] in (have[0], None):
        return "give them the model's size, which data.size does for an imagefolder"
    return None

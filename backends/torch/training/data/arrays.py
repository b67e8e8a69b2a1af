"""Examples in memory: they live on the device, and are augmented there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from irprune.backends.torch.training.data.source import Draw, Split, check_labels, per_channel
from irprune.backends.torch.training.memory import memory_for
from irprune.errors import IrpruneError
from irprune.ranges import check_range


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images."""

    crop: int = 0
    """Pad by so many black pixels on each side and cut the size out again, somewhere."""
    flip: bool = False
    """Mirror half of them, left to right."""

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "crop")


class ArrayData:
    """A `Data` of arrays: x ``(n, *shape)`` uint8 or floating, y ``(n,)`` integers.

    uint8 means pixels, which are divided by 255; `mean` and `std` have one number per channel.
    """

    def __init__(
        self,
        x_train: NDArray[Any],
        y_train: NDArray[Any],
        x_test: NDArray[Any],
        y_test: NDArray[Any],
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        augmentation: Augmentation | None = None,
        file: object = None,
    ) -> None:
        self.file = file = None if file is None else str(file)
        self._x: dict[Split, torch.Tensor] = {"train": _examples(x_train, "x_train", file)}
        self._x["test"] = _examples(x_test, "x_test", file)
        if x_train.shape[1:] != x_test.shape[1:]:
            reason = f"x_train holds {x_train.shape[1:]}, x_test {x_test.shape[1:]}"
            raise IrpruneError(reason, file=file)
        _check_scales(self._x, file)
        labels: dict[Split, NDArray[np.int64]] = {
            "train": check_labels(y_train, len(x_train), "y_train", file),
            "test": check_labels(y_test, len(x_test), "y_test", file),
        }
        self.classes = int(max(y.max() for y in labels.values())) + 1
        self.shape = tuple(x_train.shape[1:])
        self._y: dict[Split, torch.Tensor] = {
            split: torch.from_numpy(y) for split, y in labels.items()
        }
        self._augmentation = augmentation or Augmentation()
        if self._augmentation != Augmentation() and len(self.shape) != 3:
            raise IrpruneError("crop and flip need images (n, C, H, W)", file=file)
        self._mean = None if mean is None else per_channel("mean", mean, self.shape, file)
        self._std = None if std is None else per_channel("std", std, self.shape, file)
        self._device: torch.device | None = None

    def size(self, split: Split) -> int:
        return len(self._y[split])

    def content_hash(self) -> str:
        """Return a hash of all examples and labels."""
        digest = hashlib.sha256()
        for held in (self._x, self._y):
            for tensor in held.values():
                digest.update(str(tensor.dtype).encode())
                digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def batches(
        self, split: Split, draws: Iterable[Draw], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self._move(device)
        x, y = self._x[split], self._y[split]
        draws = list(draws)
        # All of them at once: a copy waits for what the device has yet to do.
        indices = _parts([draw.indices for draw in draws], device)
        how = self._augmentation
        changed = how != Augmentation() and any(draw.seed is not None for draw in draws)
        shifts = [shifts_of(len(d.indices), how, d.seed) for d in draws] if changed else []
        for index, shift in zip_longest(indices, _parts(shifts, device)):
            part = x.index_select(0, index)
            if shift is not None:
                part = augmented(part, how, shift)
            yield self._scaled(part), y.index_select(0, index)

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        x = x.float().div_(255) if x.dtype == torch.uint8 else x.float()
        if self._mean is not None:
            x = x - self._mean
        return x if self._std is None else x / self._std

    def _move(self, device: torch.device) -> None:
        if self._device == device:
            return
        mend = "train on the CPU, or give a Data that loads batch by batch"
        with memory_for(f"the data set on {device}", mend, self.file):
            for held in (self._x, self._y):
                for split, tensor in held.items():
                    held[split] = tensor.to(device)
        self._mean = None if self._mean is None else self._mean.to(device)
        self._std = None if self._std is None else self._std.to(device)
        self._device = device


def shifts_of(count: int, how: Augmentation, seed: int | None) -> NDArray[np.int64]:
    """Return ``(count, 3)``: where the cut starts in the padded picture (row, column), and whether
    it is mirrored; without a seed, what leaves a picture as it is."""
    if seed is None:
        return np.tile(np.array([how.crop, how.crop, 0]), (count, 1))
    random = np.random.default_rng(seed)
    start = random.integers(0, 2 * how.crop + 1, (2, count))
    mirrored = random.random(count) < (0.5 if how.flip else 0.0)
    return np.stack([*start, mirrored], axis=1)


def augmented(x: torch.Tensor, how: Augmentation, shifts: torch.Tensor) -> torch.Tensor:
    """Crop and flip images ``(n, C, H, W)``, each by its row of `shifts_of`, by one indexing."""
    n, channels, height, width = x.shape
    top, left, mirrored = shifts[:, :, None].unbind(1)
    images, planes, down, right = (
        torch.arange(length, device=x.device) for length in (n, channels, height, width)
    )
    columns = torch.where(mirrored > 0, width - 1 - right, right) + left
    padded = functional.pad(x, [how.crop] * 4) if how.crop else x
    return padded[
        images[:, None, None, None],
        planes[None, :, None, None],
        (down + top)[:, None, :, None],
        columns[:, None, None, :],
    ]


def _parts(arrays: Sequence[NDArray[np.int64]], device: torch.device) -> Sequence[torch.Tensor]:
    """Return arrays on a device, by one copy."""
    if not arrays:
        return ()
    whole = torch.from_numpy(np.concatenate(arrays)).to(device)
    return torch.split(whole, [len(array) for array in arrays])


def _check_scales(examples: dict[Split, torch.Tensor], file: str | None) -> None:
    """Raise IrpruneError where one split holds pixels up to 255 and the other one up to 1."""
    floats = [x for x in examples.values() if x.dtype != torch.uint8]
    if len(floats) == 1 and floats[0].numel() and floats[0].max() > 1:
        kinds = " and ".join(f"x_{split} {x.dtype}" for split, x in examples.items())
        reason = f"{kinds}, of up to {float(floats[0].max()):g}: uint8 alone is divided by 255"
        mend = "store both as uint8, or both as floats"
        raise IrpruneError(reason.replace("torch.", ""), file=file, mend=mend)


def _examples(x: NDArray[Any], what: str, file: str | None) -> torch.Tensor:
    """Return examples in a type of torch: uint8, float16 or float32 (IrpruneError: no examples)."""
    if x.ndim < 2 or not (x.dtype == np.uint8 or np.issubdtype(x.dtype, np.floating)):
        reason = f"{what} has shape {x.shape} and type {x.dtype}"
        raise IrpruneError(reason, file=file, mend="it must be (n, ...) of uint8 or floats")
    kept = next((kind for kind in (np.uint8, np.float16) if x.dtype == kind), np.float32)
    with np.errstate(over="ignore"):
        x = np.require(x, kept, ["C", "W"])
    if x.dtype != np.uint8 and not np.isfinite(x).all():
        reason = f"{what} holds NaN, infinity or numbers that are infinite in float32"
        raise IrpruneError(reason, file=file)
    return torch.from_numpy(x)

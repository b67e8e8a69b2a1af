"""``module:factory``: a data set made by the user's own code, which is imported and run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irprune.backends.torch.training.data.arrays import ArrayData, Augmentation
from irprune.backends.torch.training.data.source import Data, Draw, Hashed, Split
from irprune.errors import IrpruneError

_PARTS = ("x_train", "y_train", "x_test", "y_test")


def from_factory(
    spec: str,
    path: Path | str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    augmentation: Augmentation,
    home: Path | None = None,
) -> Data:
    """Call ``module:factory`` with `path`; it returns a `Data`, or four arrays by name or in order.

    Raises:
        IrpruneError: there is no such module or function, it fails, it returns something else, or a
            `Data` that has no use for what is given.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise IrpruneError("names no module and function", file=spec, mend="write module:factory")
    with _beside(home), _by_user("importing the module", spec):
        factory = getattr(_imported(module, spec), name, None)
    if not callable(factory):
        raise IrpruneError(f"module {module} has no function {name!r}", file=spec)
    with _beside(home), _by_user("the factory", spec):
        made: Any = factory(path)
        if isinstance(made, tuple) and len(made) == len(_PARTS):
            made = dict(zip(_PARTS, made, strict=True))
        if isinstance(made, dict) and set(made) == set(_PARTS):
            arrays = {key: np.asarray(value) for key, value in made.items()}
            return ArrayData(**arrays, mean=mean, std=std, augmentation=augmentation, file=spec)
        whole = all(hasattr(made, part) for part in ("classes", "shape", "size", "batches"))
    if not whole:
        reason = f"the factory returned {type(made).__name__}"
        raise IrpruneError(reason, file=spec, mend=f"return a Data, or {', '.join(_PARTS)}")
    if augmentation != Augmentation() or mean is not None or std is not None:
        reason = "the factory returned a Data, which scales and changes its examples by itself"
        raise IrpruneError(reason, file=spec, mend="leave mean, std, crop and flip out")
    return _Checked(made, spec)


def _imported(module: str, spec: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        reason, mend = (
            f"no module {error.name!r}",
            "put it beside the configuration, or on PYTHONPATH",
        )
        raise IrpruneError(reason, file=spec, mend=mend) from None


@contextmanager
def _beside(home: Path | None) -> Iterator[None]:
    """While it lasts, modules are looked for in a folder too, and there first."""
    added = [] if home is None else [str(home.absolute())]
    sys.path[:0] = added
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


@contextmanager
def _by_user(what: str, spec: str) -> Iterator[None]:
    """Raise IrpruneError where the user's own code raises, whatever it is."""
    try:
        yield
    except IrpruneError:
        raise
    except Exception as error:
        raise IrpruneError(f"{what} failed: {error!r}", file=spec) from error


class _Checked:
    """A user's `Data`, each batch of which must be what it says."""

    def __init__(self, data: Data, spec: str) -> None:
        self._data, self.file = data, spec
        with _by_user("the data", spec):
            classes, lengths = data.classes, tuple(data.shape)
        self.classes = self._whole("classes", classes)
        self.shape = tuple(self._whole("a length in shape", length) for length in lengths)
        for split in ("train", "test"):
            if self.size(split) < 1:
                raise IrpruneError(f"the data has no examples to {split} on", file=spec)

    def size(self, split: Split) -> int:
        with _by_user("the data", self.file):
            size = self._data.size(split)
        return self._whole(f"the size of {split}", size)

    def content_hash(self) -> str | None:
        with _by_user("the data", self.file):
            found: object = self._data.content_hash() if isinstance(self._data, Hashed) else None
        if found is None or isinstance(found, str):
            return found
        mend = "return a text, or None"
        raise IrpruneError(f"content_hash is {found!r}, no text", file=self.file, mend=mend)

    def batches(
        self, split: Split, draws: Iterable[Draw], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        draws = list(draws)
        done = 0
        with _by_user("the data", self.file):
            for draw, (x, y) in zip(draws, self._data.batches(split, draws, device), strict=False):
                self._check(x, y, len(draw.indices), device)
                done += 1
                yield x, y
        if done < len(draws):
            raise IrpruneError(f"the data has {done} batches for {len(draws)}", file=self.file)

    def _whole(self, what: str, number: object) -> int:
        if isinstance(number, int | np.integer) and number >= 0:
            return int(number)
        reason = f"{what} is {number!r}, no whole number from 0"
        raise IrpruneError(reason, file=self.file, mend="mend the Data")

    def _check(self, x: Any, y: Any, count: int, device: torch.device) -> None:
        for what, found, kind, shape in (
            ("examples", x, torch.float32, (count, *self.shape)),
            ("labels", y, torch.int64, (count,)),
        ):
            have = (found.dtype, tuple(found.shape), found.device.type)
            if have != (kind, shape, device.type):
                reason = f"{what} are {have}, where its shape asks for {(kind, shape, device.type)}"
                raise IrpruneError(reason, file=self.file, mend="mend the batches of the Data")
        low, high = (int(y.min()), int(y.max())) if count else (0, 0)
        if not 0 <= low <= high < self.classes:
            reason = f"labels lie in {low} to {high}, where it has {self.classes} classes"
            raise IrpruneError(reason, file=self.file, mend="mend the batches of the Data")

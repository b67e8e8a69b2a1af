"""Data sets by name and path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irprune.backends.torch.training.data.arrays import ArrayData, Augmentation
from irprune.backends.torch.training.data.factory import from_factory
from irprune.backends.torch.training.data.files import read_cifar10, read_mnist, read_npz
from irprune.backends.torch.training.data.folder import FolderData
from irprune.backends.torch.training.data.source import Data, Draw, Split
from irprune.errors import IrpruneError

__all__ = ["ArrayData", "Augmentation", "Data", "Draw", "FolderData", "Split", "open_data"]

_READERS = {"mnist": read_mnist, "cifar10": read_cifar10, "npz": read_npz}
_STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagefolder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def open_data(
    name: str,
    path: Path | str | None = None,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    augmentation: Augmentation | None = None,
    size: int = 224,
    workers: int = 4,
    home: Path | None = None,
) -> Data:
    """Open a data set.

    Args:
        name: ``mnist`` (folder of idx files, plain or .gz), ``cifar10`` (an .npz file or its
            folder, or the folder of the binary version), ``npz`` (arrays x_train, y_train,
            x_test, y_test), ``imagefolder`` (train/CLASS/*, val/CLASS/*), or ``module:factory``,
            which is imported and called with `path`.
        path: where it lies.
        mean, std: per channel, of pixels in [0, 1], as which uint8 is taken; by default those of
            the named set, and none for ``npz`` and factories. A `Data` of a factory scales by
            itself.
        augmentation: of training examples in arrays, on the device; an ``imagefolder`` and a
            `Data` of a factory have their own.
        size: edge of the images of an ``imagefolder``.
        workers: processes that decode an ``imagefolder``.
        home: a folder in which the module of a factory, and what that imports, may lie.

    Raises:
        IrpruneError: there is no such set, it has no use for what is given, a file is missing or
            corrupt, or labels are no classes.
    """
    known = _STATISTICS.get(name)
    mean = mean if mean is not None else (known[0] if known else None)
    std = std if std is not None else (known[1] if known else None)
    augmentation = augmentation or Augmentation()
    if ":" in name:
        return from_factory(name, path, mean, std, augmentation, home)
    if name not in (*_READERS, "imagefolder"):
        names = ", ".join([*_READERS, "imagefolder", "module:factory"])
        raise IrpruneError(f"no data set is called {name!r}", mend=f"choose one of {names}")
    if path is None:
        raise IrpruneError(f"data set {name} needs a path")
    if name == "imagefolder":
        if augmentation != Augmentation():
            reason = "an imagefolder cuts out and flips at random by itself"
            raise IrpruneError(reason, file=path, mend="leave crop and flip out")
        return FolderData(Path(path), size, workers, mean, std)
    arrays: dict[str, Any] = _READERS[name](Path(path))
    return ArrayData(**arrays, mean=mean, std=std, augmentation=augmentation, file=path)

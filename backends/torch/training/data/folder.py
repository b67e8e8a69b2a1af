"""Images in folders, one per class: ``train/CLASS/*`` and ``val/CLASS/*``, decoded as they come."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from irprune.backends.torch.training.data.source import Draw, Split, per_channel
from irprune.errors import IrpruneError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp")
_FOLDERS = {"train": ("train",), "test": ("val", "test")}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow raises on files that are no image, or a damaged one."""
_Item = tuple[torch.Tensor, int] | IrpruneError
_Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part."""
_DEEPEST = 2**16 - 1
_ASPECTS, _TRIES = (3 / 4, 4 / 3), 10
_MARGIN = 256 / 224
"""The shorter edge that evaluation resizes to, relative to the square it then cuts out."""


class FolderData:
    """A `Data` of images in folders: random area and flip in training, centre cut in testing."""

    def __init__(
        self,
        root: Path,
        size: int,
        workers: int,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
    ) -> None:
        if find_spec("PIL") is None:
            raise IrpruneError("image folders need Pillow", mend="pip install pillow")
        folders = {split: _folder(root, names) for split, names in _FOLDERS.items()}
        names, tested = (_classes(folder) for folder in folders.values())
        strange = set(tested) - set(names)
        if not names or strange:
            reason = (
                f"classes {sorted(strange)} are not in train" if strange else "no class folders"
            )
            raise IrpruneError(reason, file=root)
        self._roots = folders
        self._files = {split: _listed(folder, names) for split, folder in folders.items()}
        bare = sorted(set(range(len(names))) - {label for _, label in self._files["train"]})
        if bare:
            reason = f"class {names[bare[0]]} has no images to train on"
            raise IrpruneError(
                reason, file=folders["train"] / names[bare[0]], mend="fill or remove it"
            )
        self.classes = len(names)
        self.shape = (3, size, size)
        self.file = str(root)
        self._workers = workers
        mean, std = (0.0,) * 3 if mean is None else mean, (1.0,) * 3 if std is None else std
        self._mean = per_channel("mean", mean, self.shape, self.file)
        self._std = per_channel("std", std, self.shape, self.file)

    def size(self, split: Split) -> int:
        return len(self._files[split])

    def content_hash(self) -> str:
        """Return a hash of the names and sizes of all files; reading them all would take long."""
        digest = hashlib.sha256()
        for split, files in self._files.items():
            for path, label in files:
                name = path.relative_to(self._roots[split]).as_posix()
                digest.update(f"{split} {name} {label} {path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def batches(
        self, split: Split, draws: Iterable[Draw], device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        images = _Images(self._files[split], self.shape[1])
        loader = DataLoader(
            images,
            batch_sampler=[[(int(i), d.seed) for i in d.indices] for d in draws],
            num_workers=self._workers,
            pin_memory=device.type == "cuda",
            collate_fn=_stacked,
        )
        mean, std = self._mean.to(device), self._std.to(device)
        for found in loader:
            if isinstance(found, IrpruneError):
                raise found
            x, y = found
            pixels = x.to(device, non_blocking=True).float().div_(255)
            yield pixels.sub_(mean).div_(std), y.to(device, non_blocking=True)


class _Images(Dataset[_Item]):
    """Decoded images uint8 ``(3, size, size)`` and labels, by (index, seed).

    An image that cannot be decoded comes as its error: raised in a worker it would arrive as text.
    """

    def __init__(self, files: list[tuple[Path, int]], size: int) -> None:
        self.files = files
        self.side = size

    def __getitem__(self, key: Any) -> _Item:
        from PIL import Image

        index, seed = key
        path, label = self.files[index]
        try:
            with Image.open(path) as opened:
                image = _rgb(opened)
        except (*_BROKEN, Image.DecompressionBombError) as error:
            return IrpruneError(f"cannot decode: {error}", file=path, mend="replace or remove it")
        image = self._centre(image) if seed is None else self._random(image, (seed, index))
        pixels = np.asarray(image).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(pixels)), label

    def _centre(self, image: Any) -> Any:
        """Cut first, then resize: the whole of a long and narrow picture would grow huge."""
        edge = min(image.size) / _MARGIN
        return image.resize((self.side, self.side), box=_middle(image.size, edge, edge))

    def _random(self, image: Any, seed: tuple[int, int]) -> Any:
        """Cut out a random part; flip half."""
        from PIL import Image

        random = np.random.default_rng(seed)
        image = image.resize((self.side, self.side), box=random_part(image.size, random))
        flip = Image.Transpose.FLIP_LEFT_RIGHT
        return image.transpose(flip) if random.random() < 0.5 else image


def _rgb(image: Any) -> Any:
    """Return a picture in 8 bits; 16 of grey are scaled (ValueError: numbers are no pixels)."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floats, whose range nothing tells")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > _DEEPEST:
        raise ValueError(f"grey of {deep.min()} to {deep.max()}, which is more than 16 bits")
    return Image.fromarray(np.rint(deep * (255 / _DEEPEST)).astype(np.uint8)).convert("RGB")


def random_part(size: tuple[int, int], random: np.random.Generator) -> _Box:
    """Draw 8 to 100 % of an area at an aspect of 3/4 to 4/3 (Szegedy et al. 2015).

    Where ten tries do not fit, it is the largest part in the middle that keeps to the aspect.
    """
    low, high = _ASPECTS
    for _ in range(_TRIES):
        area = size[0] * size[1] * random.uniform(0.08, 1)
        aspect = np.exp(random.uniform(np.log(low), np.log(high)))
        width, height = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left = int(random.integers(0, size[0] - width + 1))
            top = int(random.integers(0, size[1] - height + 1))
            return left, top, left + width, top + height
    return _middle(size, min(size[0], size[1] * high), min(size[1], size[0] / low))


def _middle(size: tuple[int, int], width: float, height: float) -> _Box:
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _stacked(items: list[_Item]) -> tuple[torch.Tensor, torch.Tensor] | IrpruneError:
    pairs = []
    for item in items:
        if isinstance(item, IrpruneError):
            return item
        pairs.append(item)
    return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])


def _folder(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise IrpruneError(f"no folder {' or '.join(names)} here", file=root)


def _classes(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _listed(folder: Path, names: list[str]) -> list[tuple[Path, int]]:
    """Return images and their classes; what is hidden, as by a desktop or a notebook, is none."""
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise IrpruneError("no images", file=folder, mend=f"known: {', '.join(_SUFFIXES)}")
    return found

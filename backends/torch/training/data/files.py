"""Readers of image sets that fit into memory: arrays x (n, C, H, W) uint8 or float, y (n,)."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from irprune.archives import read_arrays
from irprune.errors import IrpruneError

Arrays = dict[str, NDArray[Any]]
_NAMES = ("x_train", "y_train", "x_test", "y_test")
_IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
_MOST_AXES = 3
_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_mnist(folder: Path) -> Arrays:
    """Read the four idx files of a folder, plain or gzipped."""
    found = {name: _read_idx(folder, stem) for name, stem in _IDX.items()}
    for name in ("x_train", "x_test"):
        if found[name].ndim != 3:
            raise IrpruneError(f"{_IDX[name]} holds no images", file=folder)
        found[name] = found[name][:, None]
    return found


def _read_idx(folder: Path, stem: str) -> NDArray[np.uint8]:
    """Read an idx file of bytes: two zeros, type 8, rank, big-endian sizes, then the elements."""
    path = next((p for p in (folder / stem, folder / f"{stem}.gz") if p.is_file()), None)
    if path is None:
        raise IrpruneError(f"no {stem}, plain or .gz, in this folder", file=folder)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise IrpruneError(f"corrupt: {error}", file=path, mend="fetch the file again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or not 0 < raw[3] <= _MOST_AXES:
        raise IrpruneError(f"not an idx file of bytes of 1 to {_MOST_AXES} axes", file=path)
    rank = raw[3]
    whole = len(raw) >= 4 + 4 * rank
    shape = np.frombuffer(raw, ">u4", rank, 4).tolist() if whole else []
    data = raw[4 + 4 * rank :]
    if not shape or not data or len(data) != prod(shape):
        reason = f"corrupt: {len(data)} bytes where its header says {shape}"
        raise IrpruneError(reason, file=path, mend="fetch the file again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_cifar10(path: Path) -> Arrays:
    """Read CIFAR-10 from an .npz file, its folder, or the folder of the binary version."""
    if path.is_file():
        return read_npz(path)
    if (path / "cifar10.npz").is_file():
        return read_npz(path / "cifar10.npz")
    parts = sorted(path.glob("data_batch_*.bin"))
    if not parts or not (path / "test_batch.bin").is_file():
        raise IrpruneError(
            "neither cifar10.npz nor data_batch_*.bin with test_batch.bin is here",
            file=path,
            mend="unpack the set first; pickled batches are not read",
        )
    train = np.concatenate([_read_records(part) for part in parts])
    test = _read_records(path / "test_batch.bin")
    images = {"x_train": train[:, 1:], "x_test": test[:, 1:]}
    labels = {"y_train": train[:, 0], "y_test": test[:, 0]}
    return {name: x.reshape(-1, 3, 32, 32) for name, x in images.items()} | labels


def _read_records(path: Path) -> NDArray[np.uint8]:
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise IrpruneError(f"cannot read: {error.strerror}", file=path) from error
    if not len(raw) or len(raw) % _CIFAR_RECORD:
        raise IrpruneError(f"not a whole number of {_CIFAR_RECORD}-byte records", file=path)
    return raw.reshape(-1, _CIFAR_RECORD)


def read_npz(path: Path) -> Arrays:
    """Read an .npz file of plain arrays; uint8 images (n, H, W, 3) are turned channels first."""
    if not path.is_file():
        raise IrpruneError("no such file", file=path)
    arrays = read_arrays(path, _NAMES)
    missing = [name for name in _NAMES if name not in arrays]
    if missing:
        reason = f"holds no {', '.join(missing)}"
        raise IrpruneError(reason, file=path, mend=f"it needs {', '.join(_NAMES)}")
    for name in ("x_train", "x_test"):
        x = arrays[name]
        if x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] > 4:
            arrays[name] = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return arrays

"""Sample inputs from an .npz file, for criteria that look at data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.archives import read_arrays
from irprune.errors import IrpruneError
from irprune.protocols import Arrays
from irprune.queries import dims_of

_INPUTS = ("x", "x_train", "x_test")
_LABELS = ("labels", "label", "y")
_SPLITS = {"x_train": "y_train", "x_test": "y_test"}
"""The labels of inputs that are one split of a data set."""
BATCH = 32


@dataclass(frozen=True)
class Samples:
    """A `Calibration` of arrays in memory; the first axis counts examples.

    `feeds` has one array per graph input, `labels` class numbers ``(n,)`` where they are known,
    `file` is where they were read.
    """

    feeds: Arrays
    labels: NDArray[np.int64] | None = None
    batch: int = BATCH
    file: str | None = None

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def take(self, numbers: NDArray[np.int64]) -> Samples:
        """Return the examples of these numbers, in their order."""
        feeds = {name: array[numbers] for name, array in self.feeds.items()}
        labels = None if self.labels is None else self.labels[numbers]
        return replace(self, feeds=feeds, labels=labels)

    def classes(self, criterion: str) -> NDArray[np.int64]:
        """Return the labels (IrpruneError: there are none, and a criterion needs them)."""
        if self.labels is None:
            reason = f"criterion {criterion} needs labels beside the samples"
            mend = (
                "add an array y of class numbers, or y_train beside x_train, y_test beside x_test"
            )
            raise IrpruneError(reason, file=self.file, mend=mend)
        return self.labels

    def parts(self) -> Iterator[NDArray[np.int64]]:
        """Yield the numbers of the examples of each batch."""
        for start in range(0, len(self), self.batch):
            yield np.arange(start, min(start + self.batch, len(self)))

    def batches(self) -> Iterator[Arrays]:
        for part in self.parts():
            yield self.take(part).feeds


def read_samples(path: str, graph: ir.Graph) -> Samples:
    """Read arrays for a graph's inputs by name; a lone input may be called x, x_train or x_test.

    Labels, where there are any, are called y_train and y_test as their inputs are, else labels,
    label or y. Where the graph fixes the batch, the last examples that do not fill one are left
    out.

    Raises:
        IrpruneError: the file is no archive of plain arrays, or they do not fit the inputs.
    """
    arrays = read_arrays(Path(path))
    inputs = list(graph.inputs)
    source = inputs[0].name or "" if len(inputs) == 1 else ""
    named = {value.name or "": value for value in inputs}
    if not named.keys() <= arrays.keys() and len(inputs) == 1:
        lone = next((name for name in _INPUTS if name in arrays), None)
        if lone is not None:
            arrays[source], source = arrays[lone], lone
    missing = sorted(named.keys() - arrays.keys())
    if missing:
        have = ", ".join(sorted(arrays)) or "nothing"
        reason = f"holds no array for {', '.join(missing)}; it holds {have}"
        raise IrpruneError(reason, file=path, mend="name the arrays after the graph inputs")
    feeds = {name: arrays[name] for name in named}
    _check(named, feeds, path)
    fixed = fixed_batch(graph)
    others = {name: array for name, array in arrays.items() if name not in named}
    labels = _labels(others, source, path)
    count = len(next(iter(feeds.values())))
    if fixed is not None and count < fixed:
        reason = f"{count} examples do not fill the model's batch of {fixed}"
        raise IrpruneError(reason, file=path, mend=f"give {fixed} or more")
    if labels is not None:
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            reason = f"labels have shape {labels.shape} and type {labels.dtype}"
            raise IrpruneError(reason, file=path, mend=f"give {count} integers")
        labels = labels.astype(np.int64)
    usable = count if fixed is None else count - count % fixed
    return Samples(
        {name: array[:usable] for name, array in feeds.items()},
        None if labels is None else labels[:usable],
        BATCH if fixed is None else fixed,
        path,
    )


def _labels(arrays: Arrays, source: str, path: str) -> NDArray[Any] | None:
    """Return the labels that belong to the inputs read from the array `source`."""
    either = [*_SPLITS.values()]
    names = [_SPLITS[source], *_LABELS] if source in _SPLITS else [*_LABELS, *either]
    found = [name for name in names if name in arrays]
    if found == either:
        reason = f"holds {' and '.join(either)}, either of which may be the labels"
        raise IrpruneError(reason, file=path, mend="name the labels of the samples y")
    return arrays[found[0]] if found else None


def fixed_batch(graph: ir.Graph) -> int | None:
    """Return the batch that the inputs of a graph fix, None where they fix none.

    Raises:
        IrpruneError: they fix different ones.
    """
    lengths = {dims[0] for value in graph.inputs if (dims := dims_of(value))}
    fixed = sorted(length for length in lengths if isinstance(length, int))
    if len(fixed) > 1:
        found = " and ".join(map(str, fixed))
        mend = "choose a criterion of weights"
        raise IrpruneError(f"the model's inputs fix different batches: {found}", mend=mend)
    return fixed[0] if fixed else None


def _stored(kind: ir.DataType) -> np.dtype[Any]:
    """Return the type of arrays for an input: no file of arrays holds bfloat16."""
    return np.dtype(np.float32) if kind == ir.DataType.BFLOAT16 else kind.numpy()


def _check(named: Mapping[str, ir.Value], feeds: Arrays, path: str) -> None:
    """Raise IrpruneError unless the arrays are examples as the inputs take them."""
    counts = {len(array) if array.ndim else 0 for array in feeds.values()}
    if len(counts) != 1 or 0 in counts:
        reason = "the arrays count different numbers of examples, or none"
        raise IrpruneError(reason, file=path, mend="give every input the same examples")
    for name, value in named.items():
        dims, array = dims_of(value) or [], feeds[name]
        fits = len(dims) == array.ndim and all(
            not isinstance(want, int) or want == have
            for want, have in zip(dims[1:], array.shape[1:], strict=True)
        )
        dtype = array.dtype if value.dtype is None else _stored(value.dtype)
        if not fits or array.dtype != dtype:
            want = "x".join(str(d) if isinstance(d, int) else "?" for d in dims)
            have = "x".join(map(str, array.shape))
            raise IrpruneError(
                f"{name} is {array.dtype} {have}, the model takes {dtype} {want}",
                file=path,
                mend="store examples as the model takes them, normalised",
            )

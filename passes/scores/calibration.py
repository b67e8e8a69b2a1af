"""Sample inputs from an .npz file, for criteria that look at data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.archives import read_arrays
from irprune.errors import IrpruneError
from irprune.protocols import Arrays
from irprune.queries import dims_of

_INPUTS = ("x", "x_train", "x_test")
_LABELS = ("labels", "label", "y", "y_train", "y_test")
BATCH = 32


@dataclass(frozen=True)
class Samples:
    """A `Calibration` of arrays in memory; the first axis counts examples.

    `feeds` has one array per graph input, `labels` class numbers ``(n,)`` where they are known.
    """

    feeds: Arrays
    labels: NDArray[np.int64] | None = None
    batch: int = BATCH

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def slices(self) -> Iterator[slice]:
        """Yield where each batch lies."""
        for start in range(0, len(self), self.batch):
            yield slice(start, min(start + self.batch, len(self)))

    def batches(self) -> Iterator[Arrays]:
        for part in self.slices():
            yield {name: array[part] for name, array in self.feeds.items()}


def read_samples(path: str, graph: ir.Graph) -> Samples:
    """Read arrays for a graph's inputs by name; a lone input may be called x, x_train or x_test.

    Labels, where there are any, are called labels, label, y, y_train or y_test. Where the graph
    fixes the batch, the last examples that do not fill one are left out.

    Raises:
        IrpruneError: the file is no archive of plain arrays, or they do not fit the inputs.
    """
    arrays = read_arrays(Path(path))
    inputs = list(graph.inputs)
    named = {value.name or "": value for value in inputs}
    if not named.keys() <= arrays.keys() and len(inputs) == 1:
        lone = next((name for name in _INPUTS if name in arrays), None)
        if lone is not None:
            arrays[inputs[0].name or ""] = arrays[lone]
    missing = sorted(named.keys() - arrays.keys())
    if missing:
        have = ", ".join(sorted(arrays)) or "nothing"
        reason = f"holds no array for {', '.join(missing)}; it holds {have}"
        raise IrpruneError(reason, file=path, mend="name the arrays after the graph inputs")
    feeds = {name: arrays[name] for name in named}
    fixed = _fixed_batch(named, feeds, path)
    labels = next((arrays[name] for name in _LABELS if name in arrays and name not in named), None)
    count = len(next(iter(feeds.values())))
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
    )


def _fixed_batch(named: Mapping[str, ir.Value], feeds: Arrays, path: str) -> int | None:
    """Return the batch that the graph fixes, None where it fixes none (IrpruneError: no fit)."""
    fixed: set[int] = set()
    counts = {len(array) if array.ndim else 0 for array in feeds.values()}
    if len(counts) != 1 or 0 in counts:
        raise IrpruneError("the arrays count different numbers of examples, or none", file=path)
    for name, value in named.items():
        dims, array = dims_of(value) or [], feeds[name]
        fits = len(dims) == array.ndim and all(
            not isinstance(want, int) or want == have
            for want, have in zip(dims[1:], array.shape[1:], strict=True)
        )
        dtype = value.dtype.numpy() if value.dtype is not None else array.dtype
        if not fits or array.dtype != dtype:
            want = "x".join(str(d) if isinstance(d, int) else "?" for d in dims)
            have = "x".join(map(str, array.shape))
            raise IrpruneError(
                f"{name} is {array.dtype} {have}, the model takes {dtype} {want}",
                file=path,
                mend="store examples as the model takes them, normalised",
            )
        if isinstance(dims[0], int):
            fixed.add(dims[0])
    if len(fixed) > 1:
        lengths = " and ".join(map(str, sorted(fixed)))
        mend = "choose a criterion of weights"
        raise IrpruneError(f"the model's inputs fix different batches: {lengths}", mend=mend)
    (count,) = counts
    batch = next(iter(fixed), None)
    if batch is not None and count < batch:
        raise IrpruneError(f"{count} examples do not fill the model's batch of {batch}", file=path)
    return batch

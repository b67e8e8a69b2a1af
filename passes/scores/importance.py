"""How much each channel matters: one score per class, from the weights around it.

Criteria: ``l1`` the sum of absolute values (Li et al. 2017), ``l2`` the sum of squares, ``linf``
the largest absolute value of a slice; ``bn-scale`` the magnitude of the BatchNormalization scale
(Liu et al. 2017, Network Slimming); ``fpgm`` the distance to the other slices of the layer (He et
al. 2019, geometric median); ``reconstruction`` what the readers lose (see `reconstruction.py`);
``random``.

The slices of a channel are the filters that create it (``members=producers``), the weights that
its consumers multiply it with (``consumers``), or both (``all``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.channels import Channels, Site
from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.labels import PINNED, Labels

Scores = npt.NDArray[np.float64]
Criterion = Literal["reconstruction", "l1", "l2", "linf", "bn-scale", "fpgm", "random"]
Aggregate = Literal["mean", "sum", "max"]
Normalize = Literal["none", "mean", "max", "l2", "layers"]
Members = Literal["producers", "consumers", "all"]


def rows_of(array: np.ndarray, axis: int) -> npt.NDArray[np.floating]:
    """Return the slices along an axis as rows, shape ``(positions, elements)``."""
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float32)


def rows_by_class(
    array: np.ndarray, axis: int, per: tuple[int, ...], classes: Labels
) -> tuple[npt.NDArray[np.floating], Labels]:
    """Return what each class has in all rows of an axis as one row, and the classes.

    ``classes`` has shape ``(*lengths of per, positions)``, the result ``(classes, elements)``.
    """
    moved = np.moveaxis(array, (*per, axis), range(len(per) + 1)).reshape(classes.size, -1)
    order = np.argsort(classes, axis=None, kind="stable")
    order = order[classes.ravel()[order] > 0]
    ids, starts, counts = np.unique(classes.ravel()[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    rows = np.zeros((len(ids), counts.max(initial=0), moved.shape[1]), np.float64)
    rows[np.repeat(np.arange(len(ids)), counts), place] = moved[order]
    return rows.reshape(len(ids), -1), ids


def _distances(rows: npt.NDArray[np.floating]) -> Scores:
    """Sum of Euclidean distances from each row to all others."""
    wide = rows.astype(np.float64)
    squares = np.einsum("ij,ij->i", wide, wide)
    gram = squares[:, None] + squares[None, :] - 2 * (wide @ wide.T)
    return np.asarray(np.sqrt(np.maximum(gram, 0)).sum(axis=1))


def finite(scores: npt.NDArray[np.floating], value: ir.Value) -> Scores:
    if not np.isfinite(scores).all():
        raise IrpruneError(
            f"weight {value.name} holds NaN or infinity", mend="export a model with finite weights"
        )
    return scores.astype(np.float64)


_MEASURES: dict[str, Callable[[npt.NDArray[np.floating]], npt.NDArray[np.floating]]] = {
    "l1": lambda rows: np.abs(rows).sum(axis=1, dtype=np.float64),
    "l2": lambda rows: np.einsum("ij,ij->i", rows, rows, dtype=np.float64),
    "linf": lambda rows: np.abs(rows).max(axis=1),
    "fpgm": _distances,
}


class Importance:
    """Scores of the classes of a graph under one criterion.

    Args:
        channels: the channel classes of the graph.
        criterion: what is measured of each member slice of a class.
        members: which slices belong to a class; where no weight consumes a channel, the
            filters that create it count, whatever weights consume its peers.
        aggregate: how the member slices of a class become one number.
        seed: for ``random``.
    """

    def __init__(
        self,
        channels: Channels,
        criterion: Criterion,
        members: Members,
        aggregate: Aggregate,
        seed: int,
    ) -> None:
        self.members = members
        self.channels = channels
        self.criterion = criterion
        self.aggregate = aggregate
        self._random = np.random.default_rng(seed).random(channels.count)
        self._measured: dict[tuple[ir.Value, int], Scores] = {}
        self._scales = self._batchnorm_scales() if criterion == "bn-scale" else []

    def of(self, group: Group) -> Scores | None:
        """Return the scores of a group's classes, shape ``(size,)``.

        None where one of them has no slice: it could not be compared with its peers.

        Raises:
            IrpruneError: a weight holds NaN or infinity.
        """
        if self.criterion == "random":
            return self._random[group.classes]
        members = self._slices(group)
        if not members:
            return None
        slices = [self._slice(value, axis, classes) for value, axis, classes in members]
        return self._aggregate(slices, group)

    def _slice(self, value: ir.Value, axis: int, classes: Labels) -> tuple[Scores, Labels]:
        """Return the score of each slice along an axis of a weight, and its class.

        Where the classes differ per row, what one class has in all rows is its slice.
        """
        if classes.ndim == 1:
            return self._measure(value, axis), classes
        assert value.const_value is not None, "a weight of one number has no rows"
        per = self.channels.per(value, axis)
        rows, ids = rows_by_class(value.const_value.numpy(), axis, per, classes)
        return finite(_MEASURES[self.criterion](rows), value), ids

    def _slices(self, group: Group) -> list[tuple[ir.Value, int, Labels]]:
        """Return the tensor axes (value, axis, classes) whose slices are members of the group."""
        if self.criterion == "bn-scale":
            return [(v, 0, c) for v, c in self._scales if np.isin(c, group.classes).any()]
        makers = [(site.value, site.axis, site.classes) for site in group.producers]
        if self.members == "producers":
            return makers
        readers = [(site.value, site.axis, site.classes) for site in self._consumers(group)]
        if self.members == "all":
            return makers + readers
        unread = np.zeros(self.channels.count, np.bool_)
        unread[group.classes] = True
        for _, _, classes in readers:
            unread[classes] = False
        alone = [(v, k, np.where(unread[c], c, PINNED)) for v, k, c in makers if unread[c].any()]
        return readers + alone

    def _consumers(self, group: Group) -> list[Site]:
        """Return the sites that read a class of a group: the peers may have different ones."""
        classes, sites = self._readers
        inside = np.zeros(self.channels.count, np.bool_)
        inside[group.classes] = True
        return [self.channels.consumers[k] for k in np.unique(sites[inside[classes]])]

    @cached_property
    def _readers(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pairs of a class and the number of a consumer site that reads it."""
        read = [np.unique(site.classes) for site in self.channels.consumers]
        numbers = np.repeat(np.arange(len(read)), [len(classes) for classes in read])
        return np.concatenate([*read, np.zeros(0, np.int64)]), numbers

    def _aggregate(
        self, slices: list[tuple[Scores, npt.NDArray[np.int64]]], group: Group
    ) -> Scores | None:
        scores = np.concatenate([s for s, _ in slices])
        classes = np.concatenate([c.ravel() for _, c in slices])
        inside = np.isin(classes, group.classes)
        position = np.searchsorted(group.classes, classes[inside])
        size = len(group)
        times = np.bincount(position, minlength=size)
        if not times.all():
            return None
        if self.aggregate == "max":
            result = np.zeros(size)
            np.maximum.at(result, position, scores[inside])
            return result
        total: Scores = np.bincount(position, scores[inside], size).astype(np.float64)
        if self.aggregate == "sum":
            return total
        return total / times

    def _measure(self, value: ir.Value, axis: int) -> Scores:
        key = (value, axis)
        if key not in self._measured:
            if value.const_value is None:  # the same number everywhere: no channel matters more
                assert value.shape is not None
                self._measured[key] = np.zeros(int(value.shape[axis]))  # type: ignore[arg-type]
                return self._measured[key]
            measure = _MEASURES["linf" if self.criterion == "bn-scale" else self.criterion]
            scores = np.asarray(measure(rows_of(value.const_value.numpy(), axis)), np.float64)
            self._measured[key] = finite(scores, value)
        return self._measured[key]

    def _batchnorm_scales(self) -> list[tuple[ir.Value, npt.NDArray[np.int64]]]:
        found = []
        for node in self.channels.graph:
            scale = node.inputs[1] if node.op_type == "BatchNormalization" else None
            if scale is not None and scale.is_initializer():
                classes = self.channels.of(scale)[0]
                if classes is not None:
                    found.append((scale, classes))
        if not found:
            raise IrpruneError(
                "criterion bn-scale needs BatchNormalization nodes, the model has none",
                mend="export it with BatchNormalization kept, or choose another criterion",
            )
        return found


def normalized(scores: Scores, how: Normalize, layers: int) -> Scores:
    """Make scores comparable across groups; a group of zeros stays zero.

    ``layers`` divides by the root of the mean square and multiplies by the number of layers that
    create the channel: a channel of a residual stream costs every layer that writes to it.
    """
    scale = float(_SCALES[how](scores))
    relative = scores / scale if scale > 0 else scores
    return relative * layers if how == "layers" else relative


_SCALES: dict[str, Callable[[Scores], float]] = {
    "none": lambda scores: 1.0,
    "mean": lambda scores: float(scores.mean()),
    "layers": lambda scores: float(np.sqrt(np.square(scores).mean())),
    "max": lambda scores: float(scores.max()),
    "l2": lambda scores: float(np.linalg.norm(scores)),
}

"""How much each channel matters: one score per class, from the weights that create it.

Criteria: ``l1``, ``l2`` and ``linf`` norms of the filter (Li et al. 2017), ``bn-scale`` the
magnitude of the BatchNormalization scale (Liu et al. 2017, Network Slimming), ``fpgm`` the
distance to the other filters of the layer (He et al. 2019, geometric median), ``random``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from irprune.channels import Channels
from irprune.errors import IrpruneError
from irprune.groups import Group

Scores = npt.NDArray[np.float64]
Criterion = Literal["l1", "l2", "linf", "bn-scale", "fpgm", "random"]
Aggregate = Literal["mean", "sum", "max"]
Normalize = Literal["none", "mean", "max", "l2"]


def _rows(array: np.ndarray, axis: int) -> npt.NDArray[np.floating]:
    """Return the slices along an axis as rows, shape ``(positions, elements)``."""
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
    return rows if rows.dtype in (np.float32, np.float64) else rows.astype(np.float32)


def _distances(rows: npt.NDArray[np.floating]) -> Scores:
    """Sum of Euclidean distances from each row to all others."""
    wide = rows.astype(np.float64)
    squares = np.einsum("ij,ij->i", wide, wide)
    gram = squares[:, None] + squares[None, :] - 2 * (wide @ wide.T)
    return np.asarray(np.sqrt(np.maximum(gram, 0)).sum(axis=1))


_MEASURES: dict[str, Callable[[npt.NDArray[np.floating]], npt.NDArray[np.floating]]] = {
    "l1": lambda rows: np.abs(rows).sum(axis=1, dtype=np.float64),
    "l2": lambda rows: np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)),
    "linf": lambda rows: np.abs(rows).max(axis=1),
    "fpgm": _distances,
}


class Importance:
    """Scores of the classes of a graph under one criterion.

    Args:
        channels: the channel classes of the graph.
        criterion: what is measured of each member slice of a class.
        aggregate: how the member slices of a class become one number.
        seed: for ``random``.
    """

    def __init__(
        self, channels: Channels, criterion: Criterion, aggregate: Aggregate, seed: int
    ) -> None:
        self.channels = channels
        self.criterion = criterion
        self.aggregate = aggregate
        self._random = np.random.default_rng(seed).random(channels.count)
        self._measured: dict[tuple[ir.Value, int], Scores] = {}
        self._scales = self._batchnorm_scales() if criterion == "bn-scale" else []

    def of(self, group: Group) -> Scores | None:
        """Return the scores of a group's classes, shape ``(size,)``; None where undefined.

        Raises:
            IrpruneError: a weight holds NaN.
        """
        if self.criterion == "random":
            return self._random[group.classes]
        if self.criterion == "bn-scale":
            members = [(v, 0, c) for v, c in self._scales if np.isin(c, group.classes).any()]
        else:
            members = [(s.value, s.axis, s.classes) for s in group.producers]
        if not members:
            return None
        slices = [(self._measure(v, axis), classes) for v, axis, classes in members]
        return self._aggregate(slices, group)

    def _aggregate(
        self, slices: list[tuple[Scores, npt.NDArray[np.int64]]], group: Group
    ) -> Scores:
        scores = np.concatenate([s for s, _ in slices])
        classes = np.concatenate([c for _, c in slices])
        inside = np.isin(classes, group.classes)
        position = np.searchsorted(group.classes, classes[inside])
        size = len(group)
        if self.aggregate == "max":
            result = np.zeros(size)
            np.maximum.at(result, position, scores[inside])
            return result
        total: Scores = np.bincount(position, scores[inside], size).astype(np.float64)
        if self.aggregate == "sum":
            return total
        return total / np.maximum(np.bincount(position, minlength=size), 1)

    def _measure(self, value: ir.Value, axis: int) -> Scores:
        key = (value, axis)
        if key not in self._measured:
            if value.const_value is None:  # the same number everywhere: no channel matters more
                assert value.shape is not None
                self._measured[key] = np.zeros(int(value.shape[axis]))  # type: ignore[arg-type]
                return self._measured[key]
            measure = _MEASURES["linf" if self.criterion == "bn-scale" else self.criterion]
            scores = np.asarray(measure(_rows(value.const_value.numpy(), axis)), np.float64)
            if np.isnan(scores).any():
                raise IrpruneError(
                    f"weight {value.name} holds NaN", mend="export a model with finite weights"
                )
            self._measured[key] = scores
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


def normalized(scores: Scores, how: Normalize) -> Scores:
    """Make scores comparable across groups; a group of zeros stays zero."""
    scale = float(_SCALES[how](scores))
    return scores / scale if scale > 0 else scores


_SCALES: dict[str, Callable[[Scores], float]] = {
    "none": lambda scores: 1.0,
    "mean": lambda scores: float(scores.mean()),
    "max": lambda scores: float(scores.max()),
    "l2": lambda scores: float(np.linalg.norm(scores)),
}

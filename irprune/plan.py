"""Which positions of which tensor axes stay: the plan, and its public file format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irprune.atomic import write_text
from irprune.errors import IrpruneError

Mask = npt.NDArray[np.bool_]
FORMAT, VERSION = "irprune-plan", 1


@dataclass(frozen=True, eq=False)
class Balanced:
    """Kept positions of an axis that differ per index of other axes, equally many for each."""

    per: tuple[int, ...]
    """The other axes, ascending."""
    rows: Mask
    """Shape ``(*lengths of per, positions)``."""

    def __len__(self) -> int:
        return int(self.rows.shape[-1])

    def raised(self, rank: int, axis: int) -> Mask:
        """Return the mask of an axis as one that broadcasts against a tensor of some rank."""
        order = sorted(range(len(self.per) + 1), key=[*self.per, axis].__getitem__)
        shape = [1] * rank
        for k, length in zip([*self.per, axis], self.rows.shape, strict=True):
            shape[k] = length
        return self.rows.transpose(order).reshape(shape)


def raised(kept: Kept, rank: int, axis: int) -> Mask:
    """Return the mask of an axis as one that broadcasts against a tensor of some rank."""
    if isinstance(kept, Balanced):
        return kept.raised(rank, axis)
    return kept.reshape([-1 if k == axis else 1 for k in range(rank)])


Kept = Mask | Balanced
"""Kept positions of one axis, shape ``(positions,)``, or of every row of it."""


def count(kept: Kept) -> int:
    """Return how many positions stay along an axis."""
    return int(first_row(kept).sum())


def first_row(kept: Kept) -> Mask:
    """Return a mask of shape ``(positions,)``: that of the first row where rows differ."""
    if not isinstance(kept, Balanced):
        return kept
    row: Mask = kept.rows.reshape(-1, len(kept))[0]
    return row


def take(array: npt.NDArray[Any], axes: Mapping[int, Kept]) -> npt.NDArray[Any]:
    """Return the kept positions of an array."""
    for axis, kept in axes.items():
        if isinstance(kept, Balanced):
            raised = kept.raised(array.ndim, axis)
            order = np.argsort(~raised, axis=axis, kind="stable")
            index = np.take(order, np.arange(count(kept)), axis=axis)
            array = np.take_along_axis(array, index, axis)
    plain = {axis: kept for axis, kept in axes.items() if not isinstance(kept, Balanced)}
    # The axis that loses most goes first, so that least is copied.
    for axis in sorted(plain, key=lambda k: float(plain[k].mean())):
        array = np.take(array, np.flatnonzero(plain[axis]), axis=axis)
    return array


@dataclass
class Plan:
    """Kept positions of every initializer and activation that loses some.

    ``axes[tensor][axis]`` is a mask of shape ``(positions,)`` in the order of the base graph, or
    one per row where the indices differ; a tensor that keeps no position of an axis goes with the
    branch that it belongs to.
    The other fields say what the plan was made from.
    """

    axes: dict[str, dict[int, Kept]] = field(default_factory=dict)
    pipeline: str = ""
    model_name: str = ""
    model_sha256: str | None = None
    base_structure: str = ""
    base_pipeline: str = ""

    @classmethod
    def empty(cls) -> Plan:
        """Return the plan that removes nothing."""
        return cls()

    def __bool__(self) -> bool:
        return bool(self.axes)

    def then(self, later: Plan) -> Plan:
        """Compose with a plan over the graph that this plan leaves; the result is over our base."""
        axes = {name: dict(masks) for name, masks in self.axes.items()}
        for name, masks in later.axes.items():
            mine = self.axes.get(name, {})
            for axis, kept in masks.items():
                axes.setdefault(name, {})[axis] = _composed(mine, axis, kept)
        return Plan(axes, later.pipeline, self.model_name, self.model_sha256)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the JSON object of the file format."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "pipeline": self.pipeline,
            "model": {"name": self.model_name, "sha256": self.model_sha256},
            "base": {"structure": self.base_structure, "pipeline": self.base_pipeline},
            "axes": {
                name: {str(axis): _entry(kept) for axis, kept in sorted(masks.items())}
                for name, masks in sorted(self.axes.items())
            },
        }

    def save(self, path: Path | str) -> None:
        """Write the plan file, atomically."""
        text = json.dumps(self.to_json(), indent=1)
        write_text(Path(path), re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text) + "\n")

    @classmethod
    def from_json(cls, data: Mapping[str, Any], file: Path | None = None) -> Plan:
        """Read the JSON object of the file format; IrpruneError where it is malformed."""
        try:
            if data["format"] != FORMAT or data["version"] != VERSION:
                raise ValueError(f"its format is {data['format']} version {data['version']}")
            axes = {
                name: {_axis(name, axis): _kept(name, entry) for axis, entry in masks.items()}
                for name, masks in data["axes"].items()
            }
            return cls(
                axes,
                data["pipeline"],
                data["model"]["name"],
                data["model"]["sha256"],
                data["base"]["structure"],
                data["base"]["pipeline"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IrpruneError(
                f"not a usable plan file: {error}",
                file=file,
                mend=f"it must be {FORMAT} version {VERSION}, as `irprune run --plan` writes it",
            ) from error

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """Read a plan file; IrpruneError where it is missing or malformed."""
        path = Path(path)
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise IrpruneError(f"cannot read the plan: {error}", file=path) from error
        if not isinstance(data, dict):
            raise IrpruneError("not a plan file: the top level is no object", file=path)
        return cls.from_json(data, path)


def _composed(earlier: Mapping[int, Kept], axis: int, later: Kept) -> Kept:
    """Return what two plans keep along one axis of a tensor; the later one may keep rows."""
    first = earlier.get(axis)
    if first is None and not isinstance(later, Balanced):
        return later
    per = sorted({k for kept in (first, later) if isinstance(kept, Balanced) for k in kept.per})
    if not per:
        assert first is not None and not isinstance(first, Balanced)
        combined = first.copy()
        combined[first] = later
        return combined
    lengths: dict[int, int] = {}
    for kept in (first, later):
        if isinstance(kept, Balanced):
            lengths |= dict(zip(kept.per, kept.rows.shape, strict=False))
    for k in per:
        if k in earlier:
            lengths[k] = len(earlier[k])
    positions = len(later if first is None else first)
    shape = (*(lengths[k] for k in per), positions)
    rows = np.ones(shape, np.bool_) if first is None else _spread(first, per, shape).copy()
    alive = np.ix_(*(np.flatnonzero(_plain(earlier, k, lengths[k])) for k in per))
    inner = rows[alive]
    kept_rows = _spread(later, per, (*inner.shape[:-1], len(later)))
    inner[inner] = kept_rows.ravel()
    # What rows keep that the earlier plan removed is of no account, but the count must be right.
    row: Mask = inner.reshape(-1, positions)[0]
    rows[...] = row
    rows[alive] = inner
    return row if (rows == row).all() else Balanced(tuple(per), rows)


def _plain(axes: Mapping[int, Kept], axis: int, length: int) -> Mask:
    kept = axes.get(axis)
    return np.ones(length, np.bool_) if kept is None else first_row(kept)


def _spread(kept: Kept, per: Sequence[int], shape: tuple[int, ...]) -> Mask:
    """Return the mask of every row, of shape ``(*lengths of per, positions)``."""
    if not isinstance(kept, Balanced):
        return np.broadcast_to(kept, shape)
    lengths = [
        size if k in kept.per else 1 for k, size in zip((*per, None), (*shape[:-1], 0), strict=True)
    ]
    return np.broadcast_to(kept.rows.reshape(*lengths[:-1], shape[-1]), shape)


def _entry(kept: Kept) -> dict[str, Any]:
    if not isinstance(kept, Balanced):
        return {"size": len(kept), "kept": _ranges(kept)}
    per: int | list[int] = kept.per[0] if len(kept.per) == 1 else list(kept.per)
    rows = kept.rows.reshape(-1, len(kept))
    entry = {"size": len(kept), "per": per, "kept": [_ranges(row) for row in rows]}
    if len(kept.per) > 1:
        entry["rows"] = list(kept.rows.shape[:-1])
    return entry


def _ranges(mask: Mask) -> list[list[int]]:
    """Return the kept positions as half-open ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [[int(a), int(b)] for a, b in edges.reshape(-1, 2)]


_MOST_POSITIONS = 1 << 31


def _axis(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name}: axis {text}")
    return int(text)


def _kept(name: str, entry: Mapping[str, Any]) -> Kept:
    size, kept = int(entry["size"]), entry["kept"]
    if not 0 < size < _MOST_POSITIONS:
        raise ValueError(f"{name}: size {size}")
    if "per" not in entry:
        return _mask(name, size, kept)
    per = entry["per"]
    axes = tuple(int(k) for k in (per if isinstance(per, list) else [per]))
    if list(axes) != sorted(set(axes)) or min(axes, default=-1) < 0:
        raise ValueError(f"{name}: per {per}")
    shape = [int(n) for n in entry["rows"]] if len(axes) > 1 else [len(kept)]
    if len(shape) != len(axes) or len(kept) != prod(shape) or len(kept) * size > _MOST_POSITIONS:
        raise ValueError(f"{name}: {len(kept)} rows per {per}")
    rows = np.stack([_mask(name, size, ranges) for ranges in kept])
    counts = rows.sum(axis=1)
    if counts.min() != counts.max():
        raise ValueError(f"{name}: the rows keep {counts.min()} to {counts.max()} positions")
    return Balanced(axes, rows.reshape(*shape, size))


def _mask(name: str, size: int, kept: Sequence[Sequence[int]]) -> Mask:
    mask = np.zeros(size, dtype=np.bool_)
    end = 0
    for start, stop in kept:
        if not end <= start < stop <= size:
            raise ValueError(f"{name}: range [{start}, {stop}) in an axis of {size} positions")
        mask[start:stop] = True
        end = stop
    return mask

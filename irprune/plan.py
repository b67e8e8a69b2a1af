"""Which positions of which tensor axes stay: the plan, and its public file format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from irprune.atomic import write_text
from irprune.errors import IrpruneError

Mask = npt.NDArray[np.bool_]
FORMAT, VERSION = "irprune-plan", 1


@dataclass
class Plan:
    """Kept positions of every initializer and activation that loses some.

    ``axes[tensor][axis]`` is a mask of shape ``(positions,)`` in the order of the base graph; a
    tensor that keeps no position of an axis goes with the branch that it belongs to.
    The other fields say what the plan was made from.
    """

    axes: dict[str, dict[int, Mask]] = field(default_factory=dict)
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
            mine = axes.setdefault(name, {})
            for axis, mask in masks.items():
                if axis not in mine:
                    mine[axis] = mask
                    continue
                combined = mine[axis].copy()
                combined[mine[axis]] = mask
                mine[axis] = combined
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
                name: {
                    str(axis): {"size": len(mask), "kept": _ranges(mask)}
                    for axis, mask in sorted(masks.items())
                }
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
                name: {_axis(name, axis): _mask(name, entry) for axis, entry in masks.items()}
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


def _ranges(mask: Mask) -> list[list[int]]:
    """Return the kept positions as half-open ranges."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [[int(a), int(b)] for a, b in edges.reshape(-1, 2)]


_MOST_POSITIONS = 1 << 31


def _axis(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{name}: axis {text}")
    return int(text)


def _mask(name: str, entry: Mapping[str, Any]) -> Mask:
    size, kept = int(entry["size"]), entry["kept"]
    if "per" in entry:
        raise ValueError(f"{name}: kept positions per index of another axis are not supported")
    if not 0 < size < _MOST_POSITIONS:
        raise ValueError(f"{name}: size {size}")
    mask = np.zeros(size, dtype=np.bool_)
    end = 0
    for start, stop in kept:
        if not end <= start < stop <= size:
            raise ValueError(f"{name}: range [{start}, {stop}) in an axis of {size} positions")
        mask[start:stop] = True
        end = stop
    return mask

"""What a round is told by: its record, and what it removes; each a JSON object in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypedDict, cast, get_args, get_origin, get_type_hints

from irprune.errors import IrpruneError
from irprune.explore.folders import read_json
from irprune.explore.iterate.files import again
from irprune.passes.rounds import Kind


class Selection(TypedDict):
    """What a round removes, in numbers."""

    threshold: float
    """T of AIAP; 0 for the other methods."""
    removed: int
    """Channels less than in the round before; one that several layers share counts once."""


class Record(Selection):
    """A round; that of the original network is number 0."""

    round: int
    accuracy: float
    loss: float
    params: int
    params_paper: int
    """As the paper counts: a removed filter takes its own weights alone with it."""
    compression_physical: float
    """Parameters of the original over those of this round."""
    compression_paper: float
    macs: int
    """Of one example, or of the batch that the network's file fixes."""
    weight_bytes: int
    threshold_kind: Kind
    """Of which layers `threshold_params` are, as the paper counts."""
    threshold_params: int
    stability: float
    """L2 distance of the weights from those of the original, both trained."""
    widths: dict[str, int]
    """Channels that each layer creates, by the name of its weight."""
    latency_s: float | None
    """In onnxruntime, where it is measured: of as many examples as `macs`."""


def read_record(path: Path) -> Record:
    """Return the record of a round (IrpruneError: it is none)."""
    mend = "remove it: the round is then done again"
    return cast(Record, _checked(read_json(path, mend), Record, path, mend))


def read_selection(path: Path) -> Selection:
    """Return what a round removes (IrpruneError: it is not told)."""
    mend = again(path)
    return cast(Selection, _checked(read_json(path, mend), Selection, path, mend))


def _checked(found: dict[str, Any], wanted: type, path: Path, mend: str) -> dict[str, Any]:
    kinds = get_type_hints(wanted)
    unfit = [key for key, kind in kinds.items() if key not in found or not _fits(kind, found[key])]
    if unfit:
        reason = f"is no {wanted.__name__.lower()} of a round: {', '.join(unfit)} missing or unfit"
        raise IrpruneError(reason, file=path, mend=mend)
    return found


def _fits(kind: Any, value: Any) -> bool:
    """Return whether a value is of a kind that a record holds; NaN and infinity are of none."""
    arms = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_fits(arm, value) for arm in arms)
    if get_origin(kind) is Literal:
        return value in arms
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(arms[1], each) for each in value.values())
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is kind

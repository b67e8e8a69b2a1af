"""A report file, read and checked: what the page may show.

The file comes from `irprune run --report R.json`, but whoever sends one may have written it by
hand: every value is converted, and what does not fit is refused. Parts that a run did not record
are None or empty, and the page leaves them out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irprune.errors import IrpruneError
from irprune.reporting.page import (
    Cost,
    Estimate,
    Group,
    Latency,
    Layer,
    Mutant,
    Page,
    Proof,
    Selection,
    Step,
    Trial,
)

Json = Mapping[str, Any]

COSTS = (
    ("params", "Parameters", ""),
    ("macs", "MACs", ""),
    ("weight_bytes", "Weights", "B"),
    ("activation_bytes", "Activations", "B"),
    ("peak_activation_bytes", "Peak activations", "B"),
)


def find(run: Path) -> Path:
    """Return the report that a path names: the file, or the one report in a folder."""
    if not run.is_dir():
        return run
    found = [path for path in sorted(run.glob("*.json")) if _is_report(path)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise IrpruneError("holds no report", file=run, mend="write one with run --report R.json")
    names = ", ".join(path.name for path in found)
    raise IrpruneError(f"holds several reports: {names}", file=run, mend="name one of them")


def _is_report(path: Path) -> bool:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and {"irprune", "before", "after", "pipeline"} <= data.keys()


def load(path: Path) -> Json:
    """Return the JSON object of a report file; IrpruneError where there is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise IrpruneError(f"cannot read: {error.strerror}", file=path) from error
    except (ValueError, RecursionError) as error:
        raise IrpruneError(f"not a JSON file: {error}", file=path) from error
    if not isinstance(data, dict):
        raise IrpruneError("not a report: the top level is no object", file=path)
    return data


def read(data: Json, file: Path | None = None) -> Page:
    """Return what a page on this report may show; IrpruneError where the report is malformed."""
    try:
        return _page(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise IrpruneError(
            f"not a usable report: {what}",
            file=file,
            mend="it must be what `irprune run --report R.json` writes",
        ) from error


def _page(data: Json) -> Page:
    model, before, after = data["model"], data["before"], data["after"]
    steps = data.get("passes", [])
    selection = data.get("selection")
    return Page(
        version=str(data["irprune"]),
        model=str(model["name"]),
        path=None if model.get("path") is None else str(model["path"]),
        facts=_facts({k: v for k, v in model.items() if k not in ("name", "path")}),
        pipeline=str(data["pipeline"]),
        costs=tuple(
            Cost(key, name, unit, _number(before[key]), _number(after[key]))
            for key, name, unit in COSTS
            if key in before and key in after
        ),
        inexact=_facts(data.get("inexact", {})),
        selection=_selection(selection) if selection else None,
        groups=_groups(data.get("groups", []), (selection or {}).get("widths", [])),
        align=None if (align := _last(steps, "align")) is None else _whole(align),
        layers=_layers(data.get("layers", []), len(data.get("groups", []))),
        proofs=tuple(map(_proof, data.get("proof", []))),
        steps=tuple(_step(row) for row in steps),
        environment=_facts(
            {"seed": data.get("seed"), **data.get("environment", {}), "irprune": data["irprune"]}
        ),
    )


def _last(steps: Sequence[Json], key: str) -> Any:
    """Return what the last pass that tells `key` said; None where none does."""
    found = [row["changed"][key] for row in steps if key in row.get("changed", {})]
    return found[-1] if found else None


def _selection(data: Json) -> Selection:
    targets = data.get("targets", {})
    latency, gap = data.get("latency"), data.get("optimality_gap")
    path = [(p["costs"][0], p["worth"]) for p in data.get("pareto", []) if p["costs"]]
    importance = data.get("kept_importance")
    return Selection(
        None if importance is None else _number(importance),
        None if gap is None else _number(gap),
        str(next(iter(targets), "cost")),
        str(data.get("worth", "sum")),
        tuple((_number(cost), _number(worth)) for cost, worth in path),
        None if latency is None else _latency(latency),
        _facts(
            {
                "asked for": targets,
                "reached": data.get("reached", {}),
                "kept l1": data.get("kept_l1"),
            }
        ),
    )


def _latency(data: Json) -> Latency:
    predicted = data.get("predicted")
    return Latency(
        _estimate(data.get("measured")),
        _estimate(data.get("latency_s")),
        _estimate(data.get("original_s")),
        None if predicted is None else _number(predicted),
        tuple(map(_trial, data.get("steps", []))),
        _facts(
            {
                k: data.get(k)
                for k in ("target", "within_tolerance", "device", "provider", "threads")
            }
        ),
    )


def _trial(row: Json) -> Trial:
    return Trial(
        _number(row["predicted"]),
        _estimate(row["measured"]),
        _number(row["kept_importance"]),
        None if row.get("error") is None else str(row["error"]),
    )


def _estimate(found: Sequence[Any] | None) -> Estimate | None:
    if found is None:
        return None
    value, low, high = map(_number, found)
    return Estimate(value, low, high)


def _groups(rows: Sequence[Json], widths: Sequence[Json]) -> tuple[Group, ...]:
    """Read the groups; what the selection told of them stands in the same order, some left out."""
    told = list(widths)
    groups = []
    for index, row in enumerate(rows):
        same = (w for w in told if (w["group"], w["width"]) == (row["name"], row["before"]))
        match = next(same, None)
        if match is not None:
            told.remove(match)
        groups.append(_group(index, row, match or {}))
    return tuple(groups)


def _group(index: int, row: Json, chosen: Json) -> Group:
    name = str(row["name"])
    before, after = _whole(row["before"]), _whole(row["after"])
    if not 0 <= after <= before:
        raise ValueError(f"group {name} grows from {before} to {after}")
    importance = chosen.get("kept_importance")
    return Group(
        index,
        name,
        before,
        after,
        _whole(row.get("balanced", 1)),
        tuple(sorted({w for w in map(_whole, chosen.get("stairs", [])) if 0 < w <= before})),
        None if importance is None else _number(importance),
        tuple((str(p["tensor"]), _whole(p["axis"]), str(p["node"])) for p in row["producers"]),
    )


def _layers(rows: Sequence[Json], groups: int) -> tuple[Layer, ...]:
    layers = tuple(
        Layer(str(row["name"]), tuple(map(_whole, row["creates"])), tuple(map(_whole, row["sums"])))
        for row in rows
    )
    for layer in layers:
        for index in (*layer.creates, *layer.sums):
            if not 0 <= index < groups:
                raise ValueError(f"layer {layer.name} names group {index} of {groups}")
    return layers


def _proof(row: Json) -> Proof:
    error = row.get("max_error")
    return Proof(
        str(row["claim"]),
        str(row["verdict"]),
        str(row["reason"]),
        _number(row["tolerance"]),
        None if error is None else _number(error),
        None if row.get("worst") is None else str(row["worst"]),
        _whole(row["compared"]),
        _whole(row["seeds"]),
        tuple(
            (str(name), f"{feed['dtype']} {'x'.join(map(str, feed['shape']))}")
            for name, feed in row.get("feeds", {}).items()
        ),
        tuple(map(_mutant, row.get("mutants", []))),
    )


def _mutant(row: Json) -> Mutant:
    one, other = row["swapped"]
    what = f"{row['weight']}, axis {row['axis']}: positions {one} and {other} swapped"
    return Mutant(what, None if row["error"] is None else _number(row["error"]))


def _step(row: Json) -> Step:
    return Step(str(row["pass"]), _number(row["seconds"]), _facts(row.get("changed", {})))


def _facts(data: Json) -> tuple[tuple[str, str], ...]:
    """Return the entries that say something, as names and texts; inner objects are flattened."""
    found: list[tuple[str, str]] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            inner = [f"{name or 'ai.onnx'} {_shown(v)}" for name, v in value.items()]
            value = ", ".join(inner)
        if value is not None and value != "" and value != []:
            found.append((str(key).replace("_", " "), _shown(value)))
    return tuple(found)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return str(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value

"""Records of rounds: what fits, and what is refused before a round is done on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irprune import IrpruneError
from irprune.explore.iterate.records import read_record

NAN = float("nan")


@pytest.mark.parametrize("latency", [None, 1, 0.5])
def test_records_are_read_as_they_were_written(finished: Path, latency: float | None) -> None:
    record = json.loads((finished / "round-001" / "record.json").read_text())
    path = finished.parent / "record.json"
    path.write_text(json.dumps(record | {"latency_s": latency}))
    assert read_record(path) == record | {"latency_s": latency}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latency_s", "x"),
        ("latency_s", NAN),
        ("accuracy", None),
        ("loss", NAN),
        ("params", True),
        ("params", 1.5),
        ("threshold_kind", "other"),
        ("threshold_kind", 3),
        ("widths", [1]),
        ("widths", {"a": None}),
        ("widths", {"a": "8"}),
    ],
)
def test_values_that_do_not_fit_are_named(finished: Path, key: str, value: Any) -> None:
    record = json.loads((finished / "round-001" / "record.json").read_text())
    path = finished.parent / "record.json"
    path.write_text(json.dumps(record | {key: value}))
    with pytest.raises(IrpruneError, match=f"no record of a round: {key} missing or unfit"):
        read_record(path)

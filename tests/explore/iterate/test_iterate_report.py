"""The report's table tells the numbers of the rounds' records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from iterate_runs import CONFIG

from irprune.explore.iterate.config import Pruning
from irprune.explore.iterate.report import report


def test_small_thresholds_are_told(finished: Path) -> None:
    (first, *_) = json.loads((finished / "records.json").read_text())
    thresholds = [0.0, 0.002, 0.002 + 0.002 + 0.002]
    records = [first | {"round": n, "threshold": t} for n, t in enumerate(thresholds)]
    text = report(replace(CONFIG, prune=Pruning("aiap", step=0.002)), records, None)
    rows = [line.split("|") for line in text.splitlines() if line.startswith(("| 0", "| 1", "| 2"))]
    assert [row[8].strip() for row in rows] == ["0", "0.002", "0.006"]

"""The page as text, and reading a report."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from irprune.errors import IrpruneError
from irprune.reporting import html
from irprune.reporting.charts import group_map
from irprune.reporting.html import render
from irprune.reporting.reading import find, load, read


def test_the_same_report_makes_the_same_page(report: dict[str, Any]) -> None:
    assert render(report) == render(json.loads(json.dumps(report)))


def test_the_page_loads_nothing(report: dict[str, Any]) -> None:
    page = render(report)
    assert "http://" not in page and "https://" not in page and "src=" not in page
    assert "style=" not in page and "onclick" not in page


def test_absent_parts_are_not_shown(report: dict[str, Any]) -> None:
    for part in ("selection", "groups", "layers", "proof", "environment", "passes"):
        del report[part]
    page = render(report)
    for part in ('id="widths"', 'id="map"', 'id="tradeoff"', "Latency"):
        assert part not in page
    assert "not proved" in page


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("before", "macs"), "many"),
        (("after", "macs"), float("nan")),
        (("groups", 0, "after"), 65),
        (("layers", 0, "creates"), [99]),
        (("proof", 0, "tolerance"), None),
        (("proof", 0, "mutants"), [{}]),
        (("selection", "latency", "measured"), [1]),
        (("passes",), 3),
        (("model",), None),
    ],
)
def test_malformed_reports_are_refused(report: dict[str, Any], path: tuple, value: Any) -> None:
    broken: Any = copy.deepcopy(report)
    inner = broken
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(IrpruneError, match="not a usable report"):
        read(broken)


def test_lines_never_share_a_lane_at_a_layer(report: dict[str, Any]) -> None:
    page = read(report)
    drawn = group_map(page.groups, page.layers, 64)
    spans = [(line.x, line.stations[0].y, line.stations[-1].y) for line in drawn.lines]
    for i, (x, first, last) in enumerate(spans):
        assert not any(x == x2 and first <= b and a <= last for x2, a, b in spans[i + 1 :])
    assert {line.x for line in drawn.lines} != {spans[0][0]}


def test_a_folder_stands_for_its_only_report(report_file: Path) -> None:
    folder = report_file.parent
    (folder / "other.json").write_text("[1]")
    assert find(folder) == report_file
    (folder / "second.json").write_text(report_file.read_text())
    with pytest.raises(IrpruneError, match="several reports: run.json, second.json"):
        find(folder)


@pytest.mark.parametrize("text", ["", "[]", "{" * 9, "[" * 100_000])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(IrpruneError):
        load(path)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None if name == "pygal" else object())
    with pytest.raises(IrpruneError, match=r'pygal, .*install "irprune\[report\]"') as caught:
        html.require()
    assert caught.value.exit_code == 2

"""`irprune report` and `irprune run --report`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from irprune.reporting import html

Cli = Callable[..., Result]

PIPELINE = "normalize, prune{macs=0.5}, compact"


def test_a_run_writes_both_kinds_and_report_makes_the_same_page(
    cli: Cli, net: Path, tmp_path: Path
) -> None:
    done = cli("run", PIPELINE, net, "-o", "s.onnx", "--report", "r.json", "--report", "r.html")
    assert done.exit_code == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert [(g["name"], g["before"]) for g in report["groups"]] == [
        ("conv1.weight", 32),
        ("conv2.weight", 48),
    ]
    assert [layer["name"] for layer in report["layers"]] == [
        "conv1 (Conv)",
        "conv2 (Conv)",
        "fc (Gemm)",
    ]
    assert report["layers"][1]["creates"] == [1] and report["layers"][1]["sums"] == [0]
    assert report["environment"]["packages"]["onnx"]
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "conv2.weight" in page and "proved" in page
    done = cli("report", tmp_path, "-o", "again.html")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "again.html\n"
    assert (tmp_path / "again.html").read_text("utf-8") == page


def test_widths_are_those_of_the_plan(cli: Cli, net: Path, tmp_path: Path) -> None:
    import onnx

    cli("run", PIPELINE, net, "-o", "s.onnx", "--report", "r.json", "--no-verify")
    shapes = {i.name: list(i.dims) for i in onnx.load("s.onnx").graph.initializer}
    for group in json.loads((tmp_path / "r.json").read_text())["groups"]:
        assert shapes[group["name"]][0] == group["after"]


def test_unknown_kinds_are_refused_before_any_work(cli: Cli, net: Path) -> None:
    done = cli("run", PIPELINE, net, "--report", "r.pdf")
    assert done.exit_code == 2
    assert "give a name that ends in .json or .html" in done.stderr
    assert "[1/3]" not in done.stderr


def test_a_missing_library_ends_before_any_work(
    cli: Cli, net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    done = cli("run", PIPELINE, net, "--report", "r.html")
    assert done.exit_code == 2
    assert "irprune[report]" in done.stderr and "[1/3]" not in done.stderr


def test_report_refuses_what_is_no_report(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"irprune": "0"}')
    for run, reason in (("r.json", "not a usable report"), (".", "holds no report")):
        done = cli("report", run)
        assert done.exit_code == 2
        assert reason in done.stderr
    assert not (tmp_path / "r.html").exists()

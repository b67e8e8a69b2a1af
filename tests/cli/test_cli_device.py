from __future__ import annotations

import json

from click.testing import CliRunner

from irprune.cli import main
from irprune.cli.device import plot


def test_an_analytic_device_is_shown_as_table_and_plot() -> None:
    result = CliRunner().invoke(main, ["device", "--device", "cache-line:16"])
    assert result.exit_code == 0, result.output
    assert "lengths in multiples of 16" in result.output
    assert "useful: 16, 32, 48" in result.output
    assert "█" in result.output


def test_json() -> None:
    result = CliRunner().invoke(main, ["device", "--device", "tpu-v2", "--json"])
    facts = json.loads(result.output)
    assert facts["align"] == 128 and facts["unit"] == "s"
    for stair in facts["stairs"]:
        assert len(stair["cost"]) == stair["length"] == stair["useful"][-1]


def test_an_unknown_device_is_bad_usage() -> None:
    result = CliRunner().invoke(main, ["device", "--device", "abacus"])
    assert result.exit_code == 2
    assert "there is no device abacus" in result.output


def test_the_plot_grows_with_the_cost() -> None:
    lines = plot([1.0, 1.0, 2.0], rows=2).splitlines()
    assert lines == ["    █", "  ███"]

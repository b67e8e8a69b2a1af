"""`irprune passes`."""

from __future__ import annotations

import json
from collections.abc import Callable

from click.testing import Result

from irprune.pipeline.registry import PASSES, PRESETS

Cli = Callable[..., Result]


def test_lists_passes_and_presets(cli: Cli) -> None:
    done = cli("passes")
    assert done.exit_code == 0
    for name in (*PASSES, *PRESETS):
        assert f"\n  {name} " in f"\n{done.stdout}"


def test_shows_options_of_a_pass(cli: Cli) -> None:
    done = cli("passes", "prune")
    assert done.exit_code == 0
    assert "macs" in done.stdout
    assert "integer|auto" in done.stdout


def test_json(cli: Cli) -> None:
    facts = json.loads(cli("passes", "--json").stdout)
    assert [each["name"] for each in facts["passes"]] == list(PASSES)
    assert facts["presets"] == dict(PRESETS)
    options = json.loads(cli("passes", "prune", "--json").stdout)["options"]
    assert {"name", "type", "default", "help"} == set(options[0])


def test_a_preset_shows_its_pipeline(cli: Cli) -> None:
    assert cli("passes", "default").stdout.strip() == PRESETS["default"]


def test_an_unknown_pass(cli: Cli) -> None:
    done = cli("passes", "prun")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "unknown pass `prun`; did you mean `prune`?" in done.stderr

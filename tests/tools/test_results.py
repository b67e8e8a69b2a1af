"""What folders of results hold, and how they are written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from irprune import IrpruneError

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from results import claim

TOOLS = Path(__file__).parents[2] / "tools"
OPTIONS = {"epochs": 1, "precision": "32-true"}


@pytest.mark.parametrize(
    ("told", "mine", "fits"),
    [
        (OPTIONS, OPTIONS, True),
        (OPTIONS, OPTIONS | {"precision": "bf16-mixed"}, False),
        (OPTIONS, OPTIONS | {"examples": "abc"}, True),
        (OPTIONS | {"examples": "xyz"}, OPTIONS | {"examples": "abc"}, False),
        ({"epochs": 1}, OPTIONS, True),
        ({"epochs": 1}, OPTIONS | {"precision": "bf16-mixed"}, False),
        ({"epochs": 2}, OPTIONS, False),
        ({}, OPTIONS, True),
        ({}, OPTIONS | {"precision": "bf16-mixed"}, False),
    ],
)
def test_a_folder_holds_the_results_of_one_way(
    tmp_path: Path, told: dict[str, object], mine: dict[str, object], fits: bool
) -> None:
    (tmp_path / "seed-0").mkdir()
    path = tmp_path / "study.json"
    if told:
        path.write_text(json.dumps(told))
    if fits:
        claim(path, mine)
        assert json.loads(path.read_text()) == mine
    else:
        with pytest.raises(IrpruneError, match="study.json: holds results of other options"):
            claim(path, mine)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_new_folder_takes_any(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "runs" / "study.json"
    claim(path, OPTIONS | {"precision": precision})
    assert json.loads(path.read_text())["precision"] == precision


@pytest.mark.parametrize("tool", ["train_speed.py", "experiments/tpu_vgg.py"])
def test_measurements_are_written_whole_or_not_at_all(tool: str) -> None:
    text = (TOOLS / tool).read_text()
    assert " write_text(" in text and ".write_text(" not in text

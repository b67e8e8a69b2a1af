"""The table of iterative runs: what it takes from records, and how it tells unfinished ones."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "experiments"))
from iterate_report import (
    METHODS,
    Record,
    Runs,
    gathered,
    going_on,
    methods_of,
    page,
    speedups,
    title,
)
from iterate_table import config_of


def rounds(*points: tuple[float, float, int]) -> list[Record]:
    """Records of (accuracy, compression, MACs)."""
    return [
        Record(
            round=number,
            accuracy=accuracy,
            loss=1.0,
            threshold=0.1 * number,
            removed=int(number > 0),
            params=1000,
            params_paper=1000,
            compression_physical=2 * compression,
            compression_paper=compression,
            macs=macs,
            weight_bytes=4000,
            threshold_kind="conv",
            threshold_params=100,
            stability=0.0,
            widths={},
            latency_s=None,
        )
        for number, (accuracy, compression, macs) in enumerate(points)
    ]


ILP = rounds((0.70, 1, 100), (0.71, 2, 60), (0.695, 4, 40), (0.60, 8, 20))
IAP = rounds((0.70, 1, 100), (0.70, 2, 50), (0.698, 5, 20), (0.50, 9, 10))
AIAP = rounds((0.70, 1, 100), (0.70, 3, 30))


def asked_of(runs: Path, known: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(net="lenet5", seeds=[2, 3], runs=runs, known=known)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    for method, rows in (("ilp", ILP), ("iap", IAP), ("aiap", AIAP)):
        for number, row in enumerate(rows):
            folder = tmp_path / f"lenet5-{method}-3" / f"round-{number:03d}"
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(json.dumps(row))
    return gathered(asked_of(tmp_path), METHODS)


def test_the_page_holds_what_the_rounds_reached(runs: Runs) -> None:
    text = "\n".join(page("lenet5", runs, {"iap-rate": {}}, {}))
    assert "Original: 70.00 % over 1 seed(s)" in text
    assert "| 0% | ILP | 2.00 | 4.00 | 2.42 | 1 |" in text
    assert "| 1% | ILP | 4.00 | 8.00 | 4.77 | 1 |" in text
    assert "| 1% | IAP | 5.00 | 10.00 | 7.75 | 1 |" in text
    assert "| 1% | AIAP | ≥ 3.00 | ≥ 6.00 | 15.88 | 1 |" in text
    assert "| 0% | 1.20 | ≥ 2.00 |" in text
    assert "| 1% | 2.00 | ≥ 1.33 |" in text


def test_another_step_of_the_threshold_is_a_method_of_its_own(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "lenet5-aiap-3").rename(tmp_path / "lenet5-aiap-0.1-3")
    options = asked_of(tmp_path)
    methods = methods_of(options)
    assert methods == [*METHODS, "aiap-0.1"]
    text = "\n".join(page("lenet5", gathered(options, methods), {"iap-rate": {}}, {}))
    assert "| 1% | AIAP, λ = 0.1 | ≥ 3.00 | ≥ 6.00 | - | 1 |" in text
    asked = {"verify": True, "rounds": None, "epochs": None, "rewind": None}
    more = argparse.Namespace(net="lenet5", precision="32-true", **asked)
    assert config_of(more, "aiap-0.1").prune.step == 0.1
    assert config_of(more, "aiap").prune.step == 0.01


def test_another_statistic_is_a_method_of_its_own(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "lenet5-aiap-3").rename(tmp_path / "lenet5-aiap-mean-0.2-3")
    assert methods_of(asked_of(tmp_path)) == [*METHODS, "aiap-mean-0.2"]
    assert title("aiap-mean-0.2") == "AIAP, mean activations, λ = 0.2"
    asked = {"verify": True, "rounds": None, "epochs": None, "rewind": None}
    more = argparse.Namespace(net="lenet5", precision="32-true", **asked)
    assert config_of(more, "aiap").prune.activation == "sum"
    mean = config_of(more, "aiap-mean-0.2").prune
    assert (mean.activation, mean.step) == ("mean", 0.2)


def test_runs_that_are_told_before_stand_where_there_is_none(runs: Runs, tmp_path: Path) -> None:
    earlier = tmp_path / "iterate-lenet5.json"
    told = {"ilp": {"2": IAP, "3": IAP}, "aiap-0.1": {"3": AIAP}}
    earlier.write_text(json.dumps(told))
    options = asked_of(tmp_path, earlier)
    assert methods_of(options) == [*METHODS, "aiap-0.1"]
    found = gathered(options, methods_of(options))
    assert (found["ilp"][2], found["ilp"][3]) == (IAP, ILP)
    assert found["aiap-0.1"] == {3: AIAP}
    assert found["iap"] == {3: IAP}


def test_numbers_that_are_asked_for_stand_instead_even_zero() -> None:
    asked = {"verify": True, "rounds": 2, "epochs": 3, "rewind": 0}
    found = config_of(argparse.Namespace(net="lenet5", precision="32-true", **asked), "iap")
    assert (found.objective.rounds, found.train.epochs, found.rewind.epoch) == (2, 3, 0)


def test_seeds_without_a_round_are_left_out(runs: Runs) -> None:
    assert {method: [*found] for method, found in runs.items()} == {key: [3] for key in METHODS}
    assert [row["macs"] for row in runs["iap"][3]] == [100, 50, 20, 10]


def test_seeds_are_compared_with_themselves() -> None:
    runs = {"ilp": {0: AIAP, 1: ILP}, "iap": {1: IAP, 2: ILP}}
    assert speedups(runs, "iap", 0.01) == [2.0]


def test_an_unfinished_base_compares_with_nothing() -> None:
    assert going_on(AIAP, 0.0)
    assert not going_on(ILP, 0.05)
    dipped = rounds((0.70, 1, 100), (0.71, 2, 60), (0.695, 4, 40))
    assert going_on(dipped, 0.0)
    assert speedups({"ilp": {0: AIAP}, "iap": {0: IAP}}, "iap", 0.0) == []

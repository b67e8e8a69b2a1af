"""Configurations of iterative runs: numbers that make no sense are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from irprune.errors import IrpruneError
from irprune.explore.iterate import read_config
from irprune.explore.iterate.config import Objective, Pruning
from irprune.explore.settings import DataSet

NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        (DataSet, {"name": "mnist", "crop": -1}, "crop = -1"),
        (DataSet, {"name": "mnist", "workers": -1}, "workers = -1"),
        (DataSet, {"name": "mnist", "size": 0}, "size = 0"),
        (Pruning, {"step": NAN}, "step = nan"),
        (Pruning, {"step": 0.0}, "step = 0"),
        (Pruning, {"enough": NAN}, "enough = nan"),
        (Pruning, {"hold": -5}, "hold = -5"),
        (Pruning, {"conv": ()}, "conv"),
        (Pruning, {"dense": (0.1, 1.0)}, "dense = 1.0"),
        (Pruning, {"samples": 0}, "samples = 0"),
        (Objective, {"rounds": 0}, "rounds = 0"),
        (Objective, {"accuracy_loss": NAN}, "accuracy_loss = nan"),
        (Objective, {"accuracy_loss": 5.0}, "accuracy_loss = 5"),
        (Objective, {"compression": NAN}, "compression = nan"),
    ],
)
def test_numbers_out_of_range(kind: type, numbers: dict[str, object], message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        kind(**numbers)


def test_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[model]\nsource="a"\n[data]\nname="mnist"\ncrop=-1\n')
    with pytest.raises(IrpruneError, match=r"c.toml: \[data\]: crop = -1 must lie in"):
        read_config(tmp_path / "c.toml")

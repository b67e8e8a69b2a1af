"""The page that explains the settings tells all of them, with their defaults."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from irprune.explore.iterate.config import Config as Iterate
from irprune.explore.iterate.config import Network, Objective, Pruning, Rewinding
from irprune.explore.settings import DataSet
from irprune.explore.train import Config as Train
from irprune.recipe import Distillation, Machine, Optimizer, Recipe, Schedule

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
TABLES = {
    "`[data]`": DataSet,
    "`[train]`": Recipe,
    "`[train.optimizer]`": Optimizer,
    "`[train.schedule]`": Schedule,
    "`[train.distillation]`": Distillation,
    "`[machine]`": Machine,
    "## `train` alone": Train,
    "## `iterate` alone": Iterate,
    "`[model]`": Network,
    "`[rewind]`": Rewinding,
    "`[prune]`": Pruning,
    "`[objective]`": Objective,
}
ELSEWHERE = {"solver"}
"""Keys that no dataclass has."""


def _told(heading: str) -> dict[str, Any]:
    """The defaults by key, as the table behind a heading has them."""
    text = PAGE[PAGE.index(f"\n{heading}") :].partition("| --- | --- | --- |\n")[2]
    found: dict[str, Any] = {}
    for row in text.partition("\n\n")[0].splitlines():
        keys, default = (cell.strip() for cell in row.split("|")[1:3])
        names = re.findall(r"`(\w+)`", keys)
        values = re.findall(r"`([^`]+)`", default) or [default] * len(names)
        found.update(zip(names, values, strict=True))
    return found


def _wanted(kind: type) -> Iterator[tuple[str, str]]:
    types = get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        nested = hasattr(types[field.name], "__dataclass_fields__")
        if not nested:
            missing = field.default is MISSING and field.default_factory is MISSING
            yield field.name, "" if missing else field.default


@pytest.mark.parametrize(("heading", "kind"), TABLES.items())
def test_the_page_tells_every_key_and_its_default(heading: str, kind: type) -> None:
    told, wanted = _told(heading), dict(_wanted(kind))
    assert told.keys() - ELSEWHERE == wanted.keys()
    for key, default in wanted.items():
        if default in ("", None):
            assert told[key] == ("none" if default is None else "")
        else:
            written = tomllib.loads(f"x = {told[key]}")["x"]
            assert written == (list(default) if isinstance(default, tuple) else default), key

"""TOML tables as dataclasses: what is wrong is named by file, key and mend."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from irprune.errors import IrpruneError
from irprune.tables import read_tables


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    how: Literal["fast", "slow"] = "fast"
    shares: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise IrpruneError("rate must not be negative")


@dataclass(frozen=True)
class Outer:
    count: int
    name: str | None = None
    quick: bool = False
    inner: Inner = field(default_factory=Inner)


def read(folder: Path, text: str) -> Outer:
    (folder / "c.toml").write_text(text)
    return read_tables(Outer, folder / "c.toml")


def test_tables_nest_and_numbers_widen(tmp_path: Path) -> None:
    text = 'count = 3\nname = "a"\n[inner]\nrate = 1\nhow = "slow"\nshares = [1, 0.5]\n'
    assert read(tmp_path, text) == Outer(3, "a", False, Inner(1.0, "slow", (1.0, 0.5)))
    assert read(tmp_path, "count = 1\ninner.shares = 2\n").inner.shares == (2.0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count = 1\ncuont = 2", r"c.toml: cuont: unknown key; did you mean count\?"),
        ("count = 1\n[inner]\nrat = 2", r"inner.rat: unknown key; did you mean rate\?"),
        ("quick = true", "count: is missing; integer"),
        ('count = "1"', "count: '1' does not fit; integer"),
        ("count = true", "count: True does not fit"),
        ("count = 1\nname = 3", "name: 3 does not fit; text"),
        ('count = 1\ninner.how = "quick"', "inner.how: 'quick' does not fit; one of fast, slow"),
        ('count = 1\ninner.shares = ["a"]', "a list of finite numbers"),
        ("count = 1\ninner.rate = nan", "inner.rate: nan does not fit; finite number"),
        ("count = 1\ninner.shares = [1, inf]", "inner.shares: .* does not fit"),
        ("count = 1\ninner.rate = 1" + "0" * 400, "inner.rate: 10+ does not fit"),
        ("count = 1\ninner = 3", "inner: 3 does not fit; a table"),
        ("count = 1\ninner.rate = -1", r"c.toml: \[inner\]: rate must not be negative"),
        ("count = ", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="No such file"):
        read_tables(Outer, tmp_path / "none.toml")

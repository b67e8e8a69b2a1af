"""Meta data: what is read, and every error at its place."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError, SpecError
from irprune.frontends.specs.document import Text
from irprune.frontends.specs.meta import Dataset, Meta, Recipe, parse_meta, read_meta

WHOLE = """machines = 4

[dataset]
name = "cub200"
directory = "data/cub200"

[pretrain]
learning-rate = 0.2
iterations = 10000
batch-size = 32
weight-decay = 0.0001

[finetune]
learning-rate = 1
iterations = 30000
batch-size = 32
solver = "Adam"
"""
WANTED = Meta(
    Dataset("cub200", "data/cub200"),
    Recipe(0.2, 10000, 32, weight_decay=0.0001),
    Recipe(1.0, 30000, 32, solver="Adam"),
    machines=4,
)


def test_toml_and_json(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(WHOLE)
    (tmp_path / "m.json").write_text(json.dumps(tomllib.loads(WHOLE)))
    assert read_meta(tmp_path / "m.toml") == WANTED
    assert read_meta(tmp_path / "m.json") == WANTED


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        ("machines = 4", "machines = 0", (1, 12), "`machines` must be positive"),
        ("machines = 4", "machines = true", (1, 12), "`machines` must be an integer"),
        ("machines = 4", "machine = 4", (1, 11), "did you mean `machines`"),
        ('"cub200"', '""', (4, 8), "must not be empty"),
        ('"data/cub200"', "3", (5, 13), "must be text"),
        ("= 0.2", "= -0.2", (8, 17), "must be positive"),
        ("= 0.2", "= nan", (8, 17), "must be positive"),
        ("= 0.2", '= "0.2"', (8, 17), "must be a number"),
        ("= 10000", "= 1.5", (9, 14), "must be an integer"),
        ("= 0.0001", "= -1", (11, 16), "must not be negative"),
        ('"Adam"', '"Adm"', (17, 10), "did you mean `Adam`"),
        ("[finetune]", "[finetuning]", (13, 1), "unknown key `finetuning`"),
        ("learning-rate = 0.2\n", "", (7, 1), "`learning-rate` is missing in pretrain"),
    ],
)
def test_errors_point_at_the_spot(old: str, new: str, place: tuple[int, int], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as caught:
        parse_meta(Text(WHOLE.replace(old, new, 1)))
    assert (caught.value.line, caught.value.column) == place


def test_tables_in_one_line_and_missing_tables() -> None:
    text = 'dataset = {name = "a", directory = "b"}\npretrain = {learning-rate = "x"}'
    with pytest.raises(SpecError) as caught:
        parse_meta(Text(text))
    assert (caught.value.line, caught.value.column) == (2, 29)
    with pytest.raises(SpecError, match="`dataset` must be a table"):
        parse_meta(Text("dataset = 3"))
    with pytest.raises(SpecError, match="`dataset` is missing"):
        parse_meta(Text(""))


@given(st.integers(0, len(WHOLE)), st.integers(0, 30), st.text(max_size=5))
def test_any_damage_is_read_or_refused(start: int, length: int, junk: str) -> None:
    try:
        parse_meta(Text(WHOLE[:start] + junk + WHOLE[start + length :]))
    except IrpruneError as error:
        assert str(error)

"""`irprune subspace sample`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from irprune.frontends.specs.subspace import read_subspace

Cli = Callable[..., Result]


@pytest.mark.parametrize("name", ["s.toml", "s.json"])
def test_spread(cli: Cli, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    done = cli(
        "subspace", "sample", "-m", "16", "-n", "50", "--seed", "7", "-o", str(path), "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["configurations"] == 50
    found = read_subspace(path, modules=16)
    assert len(found) == 50
    assert found.removed[0] == (0.3,) * 16
    assert "seed 7" in found.origin


def test_grid_and_sequences(cli: Cli, tmp_path: Path) -> None:
    path = str(tmp_path / "s.toml")
    done = cli("subspace", "sample", "--method", "grid", "-m", "2", "--rates", "0,0.5", "-o", path)
    assert done.exit_code == 0
    assert len(read_subspace(path)) == 4
    more = ("--method", "sequences", "--lengths", "3,4", "-n", "5")
    assert cli("subspace", "sample", *more, "-o", path).exit_code == 0
    assert len(read_subspace(path, modules=7)) == 5


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("-n", "5"), "--modules is missing"),
        (("-m", "3"), "needs a --count"),
        (("-m", "3", "-n", "5", "--method", "grid"), "takes no --count"),
        (("-m", "3", "-n", "5", "--rates", "0.5,1"), "outside"),
        (("-m", "3", "-n", "5", "--rates", "x"), "no list such as"),
        (("-m", "3", "-n", "5", "--method", "sequences"), "needs --lengths"),
        (("-m", "3", "-n", "5", "--method", "sequences", "--lengths", "2,2"), "add up to 4"),
        (("-m", "3", "-n", "5", "--lengths", "2,2"), "belongs to"),
    ],
)
def test_bad_usage(cli: Cli, tmp_path: Path, more: tuple[str, ...], reason: str) -> None:
    done = cli("subspace", "sample", *more, "-o", str(tmp_path / "s.toml"))
    assert (done.exit_code, done.stdout) == (2, "")
    assert reason in done.stderr
    assert not any(tmp_path.iterdir())

"""Measurements on disk: kept by key, and never a reason to fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from irprune import cache
from irprune.cache import Cache


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


def test_what_is_saved_is_loaded_by_its_key_alone() -> None:
    said: list[str] = []
    store = Cache("device", {"threads": 1})
    assert store.load(said.append) == {}
    store.save({"a": [1, 2]}, said.append)
    assert store.load(said.append) == {"a": [1, 2]}
    assert Cache("device", {"threads": 2}).load(said.append) == {}
    assert not said


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": "device"}', "\x00\xff"])
def test_a_corrupt_file_is_ignored_and_told_of(text: str) -> None:
    said: list[str] = []
    store = Cache("device", {})
    store.path.parent.mkdir()
    store.path.write_text(text, encoding="latin-1")
    assert store.load(said.append) == {}
    assert len(said) == 1 and str(store.path) in said[0]
    store.save({"x": 1}, said.append)
    assert store.load(said.append) == {"x": 1}


def test_another_version_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Cache("device", {})
    old.save({"x": 1}, print)
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert Cache("device", {}).load(print) == {}


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    said: list[str] = []
    Cache("device", {}).save({}, said.append)
    assert len(said) == 1 and "not kept" in said[0]


@pytest.mark.parametrize(
    ("platform", "variables", "tail"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/irprune"),
        ("linux", {}, ".cache/irprune"),
        ("darwin", {}, "Library/Caches/irprune"),
        ("win32", {}, "AppData/Local/irprune/Cache"),
    ],
)
def test_the_place_is_the_platforms(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], tail: str
) -> None:
    for name in (cache.VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.folder().as_posix().endswith(tail)

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irprune.atomic import remove_temporaries, replacing, write_text
from irprune.errors import IrpruneError


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_reached_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    flushed: list[tuple[int, bool]] = []

    def flush(handle: int) -> None:
        flushed.append((os.fstat(handle).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", flush)
    write_text(path, "whole")
    assert flushed == [(len("whole"), False)]


def test_a_new_file_has_the_mode_that_others_have(tmp_path: Path) -> None:
    plain, whole = tmp_path / "plain", tmp_path / "whole"
    plain.touch()
    write_text(whole, "")
    assert whole.stat().st_mode == plain.stat().st_mode


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="cannot write here"):
        write_text(tmp_path / "missing" / "report.md", "text")


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with replacing(tmp_path / "model.onnx") as temporary:
        name = temporary.name
        temporary.touch()
    others = (".model.onnx.short", ".model.onnx.UPPERCAS", ".model.onnx.two.more1", ".env.settings")
    kept = {"model.onnx", "model.onnx.abcdefgh", ".hidden", *others}
    for left in (name, *kept):
        (tmp_path / left).touch()
    (tmp_path / f"{name[:-8]}a_folder").mkdir()
    remove_temporaries(tmp_path, {".onnx"})
    assert {path.name for path in tmp_path.iterdir()} == {*kept, f"{name[:-8]}a_folder"}

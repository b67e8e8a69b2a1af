"""What a run's folder holds may be damaged, or unwritable: errors name the file and the mend."""

from __future__ import annotations

import fcntl
import re
import shutil
from pathlib import Path

import pytest
from iterate_runs import run

from irprune import IrpruneError, Model


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("round-001/record.json", b"{", "cannot read.*; remove it"),
        ("round-001/record.json", b"\xff", "cannot read.*; remove it"),
        ("round-001/record.json", b"{}", "no record of a round.*accuracy.*; remove it"),
        (
            "round-002/selection.json",
            b"{}",
            "no selection.*threshold, removed missing.*; remove the folder",
        ),
        ("round-002/selection.json", None, "cannot read.*; remove the folder"),
        ("round-002/plan.json", b"\xff", "; remove the folder"),
        ("round-001/model.onnx", None, "; remove the folder"),
        ("round-001/model.onnx", b"\x08\x08", "; remove the folder"),
        ("round-000/epoch-2.onnx", None, "; remove the folder"),
        ("run.json", b"{", "cannot read.*; choose another folder"),
    ],
)
def test_damaged_files_are_named_with_a_mend(
    done: Path, model: Model, data: Path, name: str, content: bytes | None, message: str
) -> None:
    """Round 2 is to be done again, from what is left of it where that is what is damaged."""
    path = done / name
    if path.parent.name == "round-002":
        (path.parent / "record.json").unlink()
    else:
        shutil.rmtree(done / "round-002")
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(IrpruneError) as raised:
        run(done, model, data)
    assert str(raised.value).startswith(f"{path}: ")
    assert re.search(message, str(raised.value))


@pytest.mark.parametrize("name", ["round-001/model.onnx", "round-000/epoch-2.onnx"])
def test_a_removed_round_is_done_again(done: Path, model: Model, data: Path, name: str) -> None:
    before = (done / "records.json").read_bytes()
    shutil.rmtree(done / name.split("/")[0])
    shutil.rmtree(done / "round-002")
    run(done, model, data)
    assert (done / "records.json").read_bytes() == before


def test_what_a_kill_left_goes_with_the_next_start(done: Path, model: Model, data: Path) -> None:
    before = set(done.rglob("*"))
    for name in (".model.onnx.abcdefgh", "checkpoint.pt"):
        (done / "round-001" / name).touch()
    run(done, model, data)
    assert set(done.rglob("*")) == before


@pytest.mark.parametrize("below", ["", "run"])
def test_what_is_no_folder_is_named(tmp_path: Path, model: Model, data: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IrpruneError, match=r"file.*; .*must be a folder that can be written to"):
        run(tmp_path / "file" / below, model, data)


def test_two_processes_do_not_share_a_folder(
    tmp_path: Path, model: Model, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def held(*args: object) -> None:
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "lockf", held)
    with pytest.raises(IrpruneError, match="another process"):
        run(tmp_path, model, data)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]

"""Runs of one original network share its training, if it is whole and the same."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from iterate_runs import CONFIG, ILP, run

from irprune import IrpruneError, Model
from irprune.explore.iterate.config import Objective
from irprune.recipe import Distillation


def test_methods_share_the_original(
    tmp_path: Path, finished: Path, model: Model, data: Path
) -> None:
    first = json.loads((finished / "records.json").read_text())[0]
    found = run(tmp_path / "ilp", model, data, ILP, base=finished)
    assert found[0] == first
    assert found == run(tmp_path / "alone", model, data, ILP)


def test_another_original_is_not_taken_over(
    tmp_path: Path, finished: Path, model: Model, data: Path, wider: Model, other: Path
) -> None:
    seed = replace(ILP, train=replace(ILP.train, seed=1))
    cases = (
        ("train.seed", model, data, seed),
        ("network.structure", wider, data, ILP),
        ("examples.content", model, other, ILP),
    )
    for what, network, examples, config in cases:
        with pytest.raises(IrpruneError, match=f"made otherwise: {what} differ"):
            run(tmp_path / what, network, examples, config, base=finished)
        assert not (tmp_path / what / "run.json").exists()
    with pytest.raises(IrpruneError, match="not there yet"):
        run(tmp_path / "none", model, data, ILP, base=tmp_path / "train")


def test_the_original_of_a_run_without_a_teacher_serves_one_with_it(
    tmp_path: Path, finished: Path, model: Model, data: Path
) -> None:
    """The original has no teacher in either."""
    train = replace(CONFIG.train, distillation=Distillation(0.5))
    taught = replace(CONFIG, train=train, objective=Objective(rounds=1))
    found = run(tmp_path / "taken", model, data, taught, base=finished)
    assert found == run(tmp_path / "alone", model, data, taught)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("record.json", b"{}"),
        ("plan.json", None),
        ("model.onnx", b"\x08\x08"),
        ("epoch-2.onnx", None),
    ],
)
def test_a_damaged_original_is_not_taken_over(
    tmp_path: Path, done: Path, model: Model, data: Path, name: str, content: bytes | None
) -> None:
    """But named with the base; and is taken over when that is mended as the error says."""
    path = done / "round-000" / name
    path.unlink() if content is None else path.write_bytes(content)
    mend = f"leave --base out, or remove the folder {path.parent} and start that run again"
    with pytest.raises(IrpruneError, match=f"^{re.escape(str(path))}: .*; {re.escape(mend)}$"):
        run(tmp_path / "ilp", model, data, ILP, base=done)
    assert not (tmp_path / "ilp" / "round-000").exists()


def test_a_file_of_the_base_that_cannot_be_read_is_named(
    tmp_path: Path, done: Path, model: Model, data: Path
) -> None:
    """Not the folder that is written to."""
    path = done / "round-000" / "start.onnx"
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(IrpruneError, match=f"^{path}: cannot read: .*; leave --base out"):
        run(tmp_path / "ilp", model, data, ILP, base=done)


@pytest.mark.parametrize("again", [True, False])
def test_a_kill_while_an_original_is_taken_over_loses_nothing(
    tmp_path: Path,
    finished: Path,
    model: Model,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    again: bool,
) -> None:
    class Killed(BaseException):
        pass

    def dying(source: Any, target: Any) -> None:
        if Path(target).name == "record.json":
            raise Killed
        move(source, target)

    move = os.replace
    once = replace(ILP, objective=Objective(rounds=1))
    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Killed):
        run(tmp_path / "cut", model, data, once, base=finished)
    monkeypatch.undo()
    found = run(tmp_path / "cut", model, data, once, base=finished if again else None)
    assert found == run(tmp_path / "alone", model, data, once)
    left = {path.name for path in (tmp_path / "cut").iterdir()}
    assert left == {path.name for path in (tmp_path / "alone").iterdir()}

"""A folder goes on only with what it was started with, wherever that lies now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from iterate_runs import CONFIG, ILP, net, of, run

import irprune
from irprune import IrpruneError, Model
from irprune.explore.iterate.config import Network, Objective, Rewinding

GIVEN = replace(
    CONFIG,
    model=Network("unused", "given"),
    pretrained=True,
    rewind=Rewinding(2, "learning-rate"),
    objective=Objective(rounds=1),
)


def noted(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


def test_another_configuration_is_refused(done: Path, model: Model, data: Path) -> None:
    with pytest.raises(IrpruneError, match="another run: prune.method differ"):
        run(done, model, data, ILP)
    more = replace(CONFIG, objective=Objective(rounds=3))
    assert len(run(done, model, data, more)) == 4


def test_other_data_and_networks_are_refused(
    done: Path, model: Model, data: Path, wider: Model, other: Path
) -> None:
    with pytest.raises(IrpruneError, match="another run: examples.content differ"):
        run(done, model, other)
    with pytest.raises(IrpruneError, match="another run: network.structure.* differ"):
        run(done, wider, data)


def test_weights_that_are_kept_count_and_fresh_ones_do_not(
    tmp_path: Path, done: Path, model: Model, data: Path
) -> None:
    again = of(net())
    assert len(run(done, again, data)) == 3
    run(tmp_path / "given", model, data, GIVEN)
    with pytest.raises(IrpruneError, match="network.weights differ; seed a factory"):
        run(tmp_path / "given", again, data, GIVEN)
    start = irprune.load(tmp_path / "given" / "round-000" / "start.onnx")
    assert len(run(tmp_path / "given", start, data, GIVEN)) == 2


def test_a_moved_data_set_goes_on(tmp_path: Path, done: Path, model: Model, data: Path) -> None:
    assert noted(done)["data"]["path"] == str(data)
    moved = Path(shutil.copyfile(data, tmp_path / "moved.npz"))
    config = replace(CONFIG, model=replace(CONFIG.model, source="elsewhere.onnx"))
    assert len(run(done, model, moved, config)) == 3


def test_what_cannot_change_results_may_change(done: Path, model: Model, data: Path) -> None:
    assert noted(done)["data"]["workers"] == CONFIG.data.workers
    fewer = replace(CONFIG, data=replace(CONFIG.data, workers=0))
    assert len(run(done, model, data, fewer)) == 3


def test_what_rounds_otherwise_is_another_run(done: Path, model: Model, data: Path) -> None:
    """Nor is its original that of one; a folder that does not tell was of float32."""
    half = replace(CONFIG, machine=replace(CONFIG.machine, precision="bf16-mixed"))
    told = noted(done)
    del told["machine"]
    for _ in ("as it is noted", "as it was before"):
        with pytest.raises(IrpruneError, match="another run: machine.precision differ"):
            run(done, model, data, half)
        with pytest.raises(IrpruneError, match="made otherwise: machine.precision differ"):
            run(done.parent / "ilp", model, data, half, base=done)
        (done / "run.json").write_text(json.dumps(told))
    laid = replace(CONFIG, machine=replace(CONFIG.machine, channels_last=True))
    assert len(run(done, model, data, laid)) == 3
    assert len(run(done.parent / "ilp", model, data, ILP, base=done)) == 3


def test_a_run_that_is_done_says_so(done: Path, model: Model, data: Path) -> None:
    said: list[str] = []
    run(done, model, data, log=said.append)
    assert said == [f"iterate: {done} holds all rounds already; nothing was left to do"]
    said.clear()
    run(done, model, data, replace(CONFIG, objective=Objective(rounds=3)), log=said.append)
    assert not any("left to do" in line for line in said)


def test_rounds_of_an_unknown_run_are_refused(done: Path, model: Model, data: Path) -> None:
    (done / "run.json").unlink()
    with pytest.raises(IrpruneError, match=r"run\.json: it is missing, so nobody knows"):
        run(done, model, data)


def test_a_run_that_did_not_note_its_network_does_so_now(
    done: Path, model: Model, data: Path, wider: Model
) -> None:
    old = noted(done)
    for key in ("network", "examples"):
        del old[key]
    (done / "run.json").write_text(json.dumps(old))
    with pytest.raises(IrpruneError, match="start that run again"):
        run(done.parent / "ilp", model, data, ILP, base=done)
    said: list[str] = []
    run(done, model, data, log=said.append)
    assert any("did not tell network and examples" in line for line in said)
    with pytest.raises(IrpruneError, match="network.structure differ"):
        run(done, wider, data)

"""A folder goes on only with what it was started with, wherever that lies now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from iterate_runs import CONFIG, net, run
from torch import nn

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
ILP = replace(CONFIG, prune=replace(CONFIG.prune, method="ilp"))


def of(module: nn.Module) -> Model:
    return irprune.from_torch(module.eval(), (torch.zeros(2, 1, 6, 6),))


@pytest.fixture(scope="module")
def wider() -> Model:
    return of(nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.Tanh(), nn.Linear(40, 3)))


@pytest.fixture
def other(tmp_path: Path, data: Path) -> Path:
    """A data set of the same shapes, with one other label."""
    arrays = dict(np.load(data))
    arrays["y_train"][0] = (arrays["y_train"][0] + 1) % 3
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    return path


def noted(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


def test_another_configuration_is_refused(done: Path, model: Model, data: Path) -> None:
    with pytest.raises(IrpruneError, match="another run: prune differ"):
        run(done, model, data, ILP)
    more = replace(CONFIG, objective=Objective(rounds=3))
    assert len(run(done, model, data, more)) == 4


def test_other_data_and_networks_are_refused(
    done: Path, model: Model, data: Path, wider: Model, other: Path
) -> None:
    with pytest.raises(IrpruneError, match="another run: examples differ"):
        run(done, model, other)
    with pytest.raises(IrpruneError, match="another run: network differ"):
        run(done, wider, data)


def test_weights_that_are_kept_count_and_fresh_ones_do_not(
    tmp_path: Path, done: Path, model: Model, data: Path
) -> None:
    again = of(net())
    assert len(run(done, again, data)) == 3
    run(tmp_path / "given", model, data, GIVEN)
    with pytest.raises(IrpruneError, match="network differ; seed a factory"):
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
    with pytest.raises(IrpruneError, match="network differ"):
        run(done, wider, data)


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
        ("train", model, data, seed),
        ("network", wider, data, ILP),
        ("examples", model, other, ILP),
    )
    for what, network, examples, config in cases:
        with pytest.raises(IrpruneError, match=f"made otherwise: {what} differ"):
            run(tmp_path / what, network, examples, config, base=finished)
        assert not (tmp_path / what / "run.json").exists()
    with pytest.raises(IrpruneError, match="not there yet"):
        run(tmp_path / "none", model, data, ILP, base=tmp_path / "train")

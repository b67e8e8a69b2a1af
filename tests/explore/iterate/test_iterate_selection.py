"""What rounds remove, and that rounds which never can are refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from iterate_runs import CONFIG, of, run
from torch import nn

from irprune import IrpruneError, Model
from irprune.explore.iterate import iterate
from irprune.explore.iterate.config import Objective, Pruning


def test_a_run_with_nothing_left_stops(tmp_path: Path, model: Model, data: Path) -> None:
    how = Pruning("ilp", conv=(0.99,), dense=(0.99,))
    config = replace(CONFIG, prune=how, objective=Objective(rounds=9))
    said: list[str] = []
    records = run(tmp_path, model, data, config, log=said.append)
    assert list(records[-1]["widths"].values()) == [1, 1, 3] and len(records) == 2
    assert said[-1] == "iterate: stopped after round 1: no filter is left to remove"


def test_rounds_may_remove_nothing_if_a_later_one_does(
    tmp_path: Path, model: Model, data: Path
) -> None:
    """The first one is trained all the same: its optimiser is not the original's."""
    how = Pruning("ilp", conv=(0.0, 0.0, 0.25, 0.0), dense=(0.0,))
    config = replace(CONFIG, prune=how, objective=Objective(rounds=9))
    said: list[str] = []
    records = run(tmp_path, model, data, config, log=said.append)
    assert [next(iter(r["widths"].values())) for r in records] == [8, 8, 8, 6]
    assert records[1]["loss"] != records[0]["loss"]
    assert records[2] == records[1] | {"round": 2}
    assert "the share to remove rounds to no filter in any layer" in said[-1]


class Residual(nn.Module):
    """A stream of six channels that two convolutions write, and a branch of four."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.narrow = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.wide, self.head = nn.Conv2d(4, 6, 1), nn.Linear(6 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return self.head((x + self.wide(torch.relu(self.narrow(x)))).flatten(1))


def test_channels_that_layers_share_count_once(tmp_path: Path, data: Path) -> None:
    config = replace(CONFIG, prune=Pruning("ilp", conv=(0.5,)), objective=Objective(rounds=1))
    said: list[str] = []
    records = run(tmp_path, of(Residual()), data, config, log=said.append)
    assert [*records[1]["widths"].values()] == [3, 2, 3, 3]
    assert records[1]["removed"] == 5
    assert "iterate: round 1: 5 channels less, training from epoch 2" in said


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (Pruning("iap", samples=101), r"d\.npz: 101 samples of 100"),
        (Pruning("ilp", skip=("*",)), "no layer can be pruned; .*prune.skip"),
        (Pruning("ilp", skip=("4.w",)), "'4.w' matches no layer; did you mean 4.weight"),
        (Pruning("iap", samples=9, skip=("*",)), "no layer can be pruned"),
        (Pruning("iap", samples=9, least=50), "prune: no filter is left to remove"),
        (
            Pruning("ilp", conv=(0.01,), dense=(0.01,)),
            "prune: the share to remove rounds to no filter in any layer; raise prune.conv",
        ),
    ],
)
def test_what_cannot_begin_is_refused_before_the_training(
    tmp_path: Path, model: Model, data: Path, how: Pruning, message: str
) -> None:
    with pytest.raises(IrpruneError, match=message):
        run(tmp_path, model, data, replace(CONFIG, prune=how))
    assert not (tmp_path / "round-000" / "log.jsonl").exists()


def test_the_file_of_a_key_is_named(tmp_path: Path, model: Model, data: Path) -> None:
    """Whatever the model's file is called."""
    path, network = tmp_path / "c.toml", tmp_path / "net.onnx"
    path.write_text(
        '[model]\nsource = "net.onnx"\n[data]\nname = "npz"\n[train]\nepochs = 2\n'
        "[rewind]\nepoch = 1\n[prune]\nconv = 0.01\ndense = 0.01\nsamples = 9"
    )
    model.save(network)
    with pytest.raises(IrpruneError, match=f"^{path}: prune: the share to remove"):
        iterate(path, tmp_path / "run", data=data)
    path.write_text(path.read_text().replace("samples = 9", "samples = 101"))
    with pytest.raises(IrpruneError, match=r"d\.npz: 101 samples of 100"):
        iterate(path, tmp_path / "run", data=data)


def test_what_did_not_begin_may_be_mended(tmp_path: Path, model: Model, data: Path) -> None:
    """As the error says: also to other weights than those that were drawn in vain."""
    vain = replace(CONFIG, prune=Pruning("ilp", skip=("*",)), train=replace(CONFIG.train, seed=1))
    with pytest.raises(IrpruneError, match="prune.skip"):
        run(tmp_path / "mended", model, data, vain)
    assert run(tmp_path / "mended", model, data) == run(tmp_path / "new", model, data)

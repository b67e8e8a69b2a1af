"""Several processes: what each is given, and what a checkpoint remembers of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from irprune.backends.torch.training.data import ArrayData
from irprune.backends.torch.training.loop import Job, batches_of, identity_of, seed_of
from irprune.errors import IrpruneError
from irprune.recipe import Machine, Recipe

RECIPE = Recipe(epochs=3, batch=16)


@pytest.mark.parametrize(
    ("size", "batch", "processes", "sizes"),
    [
        (65, 32, 1, [32, 32]),
        (66, 32, 1, [32, 32, 2]),
        (66, 32, 2, [32, 32]),
        (67, 32, 2, [32, 32]),
        (68, 32, 2, [32, 32, 4]),
        (3, 32, 2, [3]),
        (1, 32, 1, [1]),
    ],
)
def test_no_process_gets_a_single_example(
    size: int, batch: int, processes: int, sizes: list[int]
) -> None:
    assert [end - start for start, end in batches_of(size, batch, processes)] == sizes


def test_recipes_steps_and_processes_draw_apart() -> None:
    """By the lower half of the seed, which is all that torch takes on a CPU."""
    drawn = {
        seed_of(replace(RECIPE, seed=seed), step, process) % 2**32
        for seed in range(4)
        for step in range(50)
        for process in range(8)
    }
    assert len(drawn) == 4 * 50 * 8


def test_several_processes_go_on_with_the_batches_they_had(tmp_path: Path) -> None:
    """Of 70 examples by 22, three processes leave the last 4 out, which would be one for two."""
    x, y = np.zeros((70, 6), np.float32), np.arange(70) % 4
    recipe = replace(RECIPE, batch=22)
    jobs = [
        Job(nn.Linear(6, 4), ArrayData(x, y, x, y), recipe, tmp_path, Machine(devices=devices))
        for devices in (1, 2, 3, 4)
    ]
    one, two, three, four = map(identity_of, jobs)
    assert len({one, two, three}) == 3 and three == four
    assert identity_of(replace(jobs[0], machine=Machine("cuda"))) == one


def test_batches_reach_every_process() -> None:
    with pytest.raises(IrpruneError, match="batches of 1 do not reach 2 processes"):
        batches_of(64, 1, 2)

"""Learning rates as the papers and Caffe define them."""

from __future__ import annotations

import math

import pytest

from irprune.errors import IrpruneError
from irprune.recipe import Optimizer, Recipe, Schedule


def test_the_schedule_of_the_iterative_paper_for_resnet50() -> None:
    """Table 1: 0.4 t/8 in [0, 8), then 0.4, 0.04 from 30, 0.004 from 60, 0.0004 from 80."""
    schedule = Schedule("multistep", gamma=0.1, at=(30, 60, 80), warmup=8)
    steps = 100

    def rate(epoch: float) -> float:
        return 0.4 * schedule.share(round(epoch * steps), steps, 90)

    wanted = {0: 0, 4: 0.2, 7.99: 0.3995, 8: 0.4, 29.99: 0.4, 30: 0.04, 60: 0.004, 80: 0.0004}
    for epoch, value in wanted.items():
        assert rate(epoch) == pytest.approx(value)


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [
        (Schedule("fixed"), 7, 1.0),
        (Schedule("step", unit="steps", gamma=0.5, every=10), 29, 0.25),
        (Schedule("exp", unit="steps", gamma=0.9), 3, 0.9**3),
        (Schedule("inv", unit="steps", gamma=1e-4, power=0.75), 500, 1.05**-0.75),
        (Schedule("poly", unit="steps", power=2), 25, 0.75**2),
        (Schedule("sigmoid", unit="steps", gamma=-0.1, every=30), 50, 1 / (1 + math.exp(2))),
        (Schedule("cosine", least=0.1), 50, 0.55),
        (Schedule("cosine", warmup=2), 60, 0.5),
        (Schedule("cosine", warmup=2), 10, 0.5),
    ],
)
def test_policies(schedule: Schedule, step: int, share: float) -> None:
    assert schedule.share(step, 10, 10) == pytest.approx(share)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Schedule("step"),
        lambda: Schedule("multistep"),
        lambda: Schedule("multistep", at=(3, 2)),
        lambda: Optimizer(nesterov=True),
        lambda: Optimizer(lr=float("nan")),
        lambda: Recipe(epochs=0),
        lambda: Recipe(epochs=1, clip=0),
    ],
)
def test_nonsense_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(IrpruneError):
        make()

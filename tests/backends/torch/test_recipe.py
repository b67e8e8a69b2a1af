"""Learning rates as the papers and Caffe define them."""

from __future__ import annotations

import math

import pytest

from irprune.errors import IrpruneError
from irprune.recipe import Distillation, Machine, Optimizer, Recipe, Schedule

NAN, INF = float("nan"), float("inf")


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


@pytest.mark.parametrize(("every", "per"), [(0.1, 10), (0.7, 10), (0.3, 100), (2, 7)])
def test_stairs_stand_where_they_are_said_to(every: float, per: int) -> None:
    """At 0.3 epochs of 0.1 each, the third."""
    schedule, tenths = Schedule("step", gamma=0.5, every=every), round(10 * every)
    found = [schedule.share(step, per, 9) for step in range(9 * per)]
    assert found == [0.5 ** (10 * step // (tenths * per)) for step in range(9 * per)]


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        (Schedule, {"policy": "step"}, "every"),
        (Schedule, {"policy": "step", "every": NAN}, "every = nan"),
        (Schedule, {"policy": "step", "every": 1, "gamma": NAN}, "gamma = nan"),
        (Schedule, {"policy": "step", "every": 1, "gamma": -1.0}, "gamma = -1"),
        (Schedule, {"policy": "multistep"}, "at"),
        (Schedule, {"policy": "multistep", "at": (3, 2)}, "ascend"),
        (Schedule, {"policy": "multistep", "at": (NAN,)}, "at = nan"),
        (Schedule, {"policy": "inv", "gamma": -1.0, "power": 0.5}, "gamma = -1"),
        (Schedule, {"policy": "exp", "gamma": -1.0}, "gamma = -1"),
        (Schedule, {"policy": "poly", "power": -1.0}, "power = -1"),
        (Schedule, {"warmup": INF}, "warmup = inf"),
        (Schedule, {"warmup": NAN}, "warmup = nan"),
        (Optimizer, {"nesterov": True}, "needs a momentum"),
        (Optimizer, {"name": "nadam", "momentum": 0.9}, "nadam has no momentum"),
        (Optimizer, {"name": "adamw", "nesterov": True}, "adamw has no momentum"),
        (Optimizer, {"lr": NAN}, "lr = nan"),
        (Optimizer, {"betas": (0.9,)}, "betas"),
        (Distillation, {"temperature": NAN}, "temperature = nan"),
        (Distillation, {"temperature": INF}, "temperature = inf"),
        (Recipe, {"epochs": 0}, "epochs = 0"),
        (Recipe, {"epochs": 1, "clip": 0}, "clip = 0"),
        (Recipe, {"epochs": 1, "clip": NAN}, "clip = nan"),
        (Recipe, {"epochs": 1, "target": NAN}, "target = nan"),
        (Recipe, {"epochs": 1, "target": 76}, "target = 76"),
        (Recipe, {"epochs": 1, "seed": -1}, "seed = -1"),
        (Recipe, {"epochs": 1, "seed": 2**32}, "seed = 4294967296"),
        (Machine, {"devices": 0}, "devices = 0"),
        (Machine, {"log_steps": 0}, "log_steps = 0"),
        (Machine, {"log_steps": -1}, "log_steps = -1"),
        (Machine, {"checkpoint_steps": 0}, "checkpoint_steps = 0"),
        (Machine, {"checkpoint_minutes": NAN}, "checkpoint_minutes = nan"),
        (Machine, {"strategy": "ddp"}, "several devices"),
    ],
)
def test_nonsense_is_refused(kind: type, numbers: dict[str, object], message: str) -> None:
    with pytest.raises(IrpruneError, match=message):
        kind(**numbers)

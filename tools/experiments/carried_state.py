"""Whether retraining gains from the optimiser's state: carried over and sliced, or started afresh.

    python tools/experiments/carried_state.py --data ../shared/data/mnist

LeNet-300-100 by its configuration in examples/iterate: trained, pruned once by L1 norms, rewound
(weights and learning rate to epoch 5 of 6, or the learning rate alone) and retrained, once with a
fresh Nadam and once with the averages of epoch 5 or of the end, sliced by the plan.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import irprune
from irprune.backends.torch.training import checkpoint
from irprune.backends.torch.training.checkpoint import Progress
from irprune.backends.torch.training.data import Data, open_data
from irprune.backends.torch.training.loop import CHECKPOINT, Job, identity_of, train
from irprune.backends.torch.training.optim import make_optimizer
from irprune.backends.torch.training.trainer import TorchTrainer
from irprune.explore.iterate import read_config
from irprune.frontends.torch import load_factory
from irprune.model import Model
from irprune.plan import Plan
from irprune.recipe import Machine, Recipe

EXAMPLES = Path(__file__).parents[2] / "examples" / "iterate"
MACHINE = Machine(accelerator="cpu")


def state_after(job: Job) -> dict[str, Any]:
    """Train, and return the optimiser's state."""
    train(job)
    found = checkpoint.load(job.folder / CHECKPOINT, identity_of(job))
    assert found is not None
    return found[1]


def retrained(
    source: Model, plan: Plan, state: dict[str, Any] | None, k: int, recipe: Recipe, data: Data
) -> float:
    """Slice a network, and train it from epoch k on; return its accuracy."""
    old = irprune.to_torch(source)
    new = irprune.to_torch(irprune.apply(plan, source, verify=False).model)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(new, data, recipe, Path(folder), MACHINE, first=k)
        if state is not None:
            optimizer = make_optimizer(recipe.optimizer, old.parameters())
            optimizer.load_state_dict(state)
            carried = irprune.carry_optimizer(optimizer, old, new, plan).state_dict()
            path = job.folder / CHECKPOINT
            checkpoint.save(path, identity_of(job), new.state_dict(), carried, Progress(k))
        return train(job)[-1]["accuracy"]


def accuracies(seed: int, ratio: float, path: Path) -> dict[tuple[str, str], float]:
    """Return the accuracy after one round by what is rewound and where the state comes from."""
    config = read_config(EXAMPLES / "lenet300-mnist-ilp.toml")
    recipe, k = replace(config.train, seed=seed), config.rewind.epoch
    table = config.data
    data = open_data(table.name, path, mean=table.mean, std=table.std)
    model = load_factory(EXAMPLES / config.model.source, {})
    model = irprune.run("normalize", model, verify=False).model
    trainer = TorchTrainer(data, recipe, MACHINE, print)
    trainer.initialise(model, seed)
    flat = trainer.fitting(model)
    module = irprune.to_torch(model)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(module, flat, recipe, Path(folder), MACHINE)
        early = state_after(replace(job, last=k)), model.clone()
        early[1].update_from(module)
        late = state_after(job), model.clone()
        late[1].update_from(module)
    options = f"criterion=l1 members=producers scope=local ratio={ratio}"
    plan = irprune.run(f"normalize, prune{{{options}}}, compact", late[1]).plan
    return {
        (what, kind): retrained(source, plan, given, k, recipe, flat)
        for what, (state, source) in (("weights", early), ("learning-rate", late))
        for kind, given in (("fresh", None), ("carried", state))
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="MNIST's folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.5, 0.9])
    options = parser.parse_args()
    print("| pruned | rewound | fresh (%) | carried (%) | carried - fresh |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for ratio in options.ratios:
        found = [accuracies(seed, ratio, options.data) for seed in options.seeds]
        for what in ("weights", "learning-rate"):
            fresh, carried = (
                100 * np.array([row[what, kind] for row in found]) for kind in ("fresh", "carried")
            )
            gain = carried - fresh
            cells = [f"{x.mean():.2f} ± {x.std(ddof=1):.2f}" for x in (fresh, carried, gain)]
            print(f"| {ratio:.0%} | {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""Fine-tuning of pruned CIFAR-10 ResNets: irprune's choice beside Torch-Pruning's, one budget.

    python tools/experiments/finetune.py --data ../shared/data/cifar10 --out docs/results
    python tools/experiments/finetune.py --data cifar10.npz --epochs 2 --seeds 0

The trained network (BatchNorm not folded) is pruned to a share of its MACs, by irprune and by
Torch-Pruning, whose ratio is bisected to the same share; then each is trained by irprune's backend
with the same recipe, that of Torch-Pruning's own benchmark: SGD with momentum 0.9, learning rate
0.01, a tenth of it after 60 % and a hundredth after 80 % of the epochs, weight decay 5e-4, batch
128, crops and flips. MACs are counted by irprune in all. The accuracy is that after the last epoch.
What is done stays in `--runs`, and a training goes on where it was stopped.
Needs tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import irprune
from irprune.atomic import write_text
from irprune.backends.torch.training.data import Augmentation, open_data
from irprune.backends.torch.training.loop import CHECKPOINT, fabric_of
from irprune.backends.torch.training.trainer import TorchTrainer
from irprune.cost import CostModel, Costs
from irprune.model import Model
from irprune.recipe import Machine, Optimizer, Recipe, Schedule
from irprune.shapes import infer

sys.path.insert(0, str(Path(__file__).parents[1]))
from accuracy import MEAN, SHARED, STD, THEIRS, bisected
from cifar_resnet import BLOCKS, load_resnet
from iterate_report import spread
from results import claim
from train_speed import hardware
from zoo_export import matching

Record = dict[str, Any]
_STREAM = "conv1.weight,layer*.conv2.weight,*shortcut*"
"""Whose outputs are the residual stream."""
OURS = {
    "irprune": "",
    "irprune l2": "criterion=l2",
    "irprune l2, max, inner": f"criterion=l2 normalize=max skip={_STREAM}",
}
RIVALS = {
    "Torch-Pruning magnitude l2": ("magnitude l2", False),
    "Torch-Pruning magnitude l2, max, inner": ("magnitude l2, max", True),
}
"""Its default, and what keeps most accuracy before training: *inner* leaves the stream whole."""
PUBLISHED = "Torch-Pruning publishes 93.53 → 93.77 % for ResNet-56 at 2.13 times fewer MACs."


def frozen(module: nn.Module) -> nn.Module:
    """Make the shortcuts, which only select channels, buffers: they do not train."""
    for layer in module.modules():
        if getattr(layer, "selects", False):
            weight = layer.weight.detach()
            del layer.weight
            layer.register_buffer("weight", weight)
    return module


def imported(module: nn.Module) -> Model:
    return irprune.from_torch(frozen(module).eval(), (torch.zeros(2, 3, 32, 32),))


def costs(model: Model) -> Costs:
    """Return the costs for one image."""
    infer(model.ir)
    return CostModel(model.ir.graph).full()


def ours(net: str, options: str, keep: float) -> Model:
    model = imported(load_resnet(net, SHARED))
    pipeline = f"normalize, prune{{macs={keep} {options}}}, compact"
    return irprune.run(pipeline, model, verify=False).model


def theirs(net: str, criterion: str, inner: bool, keep: float) -> Model:
    return imported(bisected(net, THEIRS[criterion], "global", inner, keep)[1])


def makers(net: str, keep: float) -> dict[str, Callable[[], Model]]:
    """Return how each row's network is pruned."""
    rows: dict[str, Callable[[], Model]] = {
        name: partial(ours, net, how, keep) for name, how in OURS.items()
    }
    for name, (criterion, inner) in RIVALS.items():
        rows[name] = partial(theirs, net, criterion, inner, keep)
    return rows


def trainer(options: argparse.Namespace, seed: int) -> TorchTrainer:
    recipe = Recipe(
        epochs=options.epochs,
        batch=options.batch,
        seed=seed,
        optimizer=Optimizer("sgd", options.lr, 5e-4, momentum=0.9),
        schedule=Schedule("multistep", at=(0.6 * options.epochs, 0.8 * options.epochs)),
    )
    machine = Machine(precision=options.precision, channels_last=True)
    data = open_data(
        "cifar10",
        options.data,
        mean=tuple(MEAN),
        std=tuple(STD),
        augmentation=Augmentation(crop=4, flip=True),
    )
    return TorchTrainer(data, recipe, machine, log=lambda text: print(text, file=sys.stderr))


def tuned(make: Callable[[], Model], folder: Path, trainer: TorchTrainer, full: int) -> Record:
    """Return the record of one training, which is done at most once."""
    done = folder / "record.json"
    if done.exists():
        found: Record = json.loads(done.read_text())
        return found
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "pruned.onnx"
    if not start.exists():
        make().save(start)
    model, resumed = irprune.load(start), (folder / CHECKPOINT).exists()
    before, begun = trainer.score(model).accuracy, time.monotonic()
    fitted = trainer.fit(model, folder)
    record = {
        "share": costs(model).macs / full,
        "params": costs(model).params,
        "pruned": before,
        "tuned": fitted.score.accuracy,
        "seconds": None if resumed else time.monotonic() - begun,  # nobody timed what came before
        "hardware": hardware(fabric_of(Machine()).device),
    }
    model.save(folder / "tuned.onnx")
    write_text(done, json.dumps(record, indent=1) + "\n")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return record


def page(options: argparse.Namespace, original: float, rows: dict[str, list[Record]]) -> str:
    where = sorted({record["hardware"] for found in rows.values() for record in found})
    seeds = " ".join(map(str, options.seeds))
    command = (
        f"python tools/experiments/finetune.py --net {options.net} --keep {options.keep} "
        f"--epochs {options.epochs} --lr {options.lr} --batch {options.batch} --seeds {seeds}"
    )
    lines = [
        f"# {options.net}, CIFAR-10: pruned to {options.keep:.3f} of the MACs and fine-tuned",
        "",
        f"`{command}`; {options.precision}, on {', '.join(where)}.",
        "",
        f"The original has {original:.2%}. {PUBLISHED}",
    ]
    if options.epochs < 100:
        lines.append(f"This is a shortened budget: {options.epochs} of 100 epochs.")
    lines += ["", "| pruned by | MACs | fewer | pruned | fine-tuned | seeds |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, found in rows.items():
        share = sum(r["share"] for r in found) / len(found)
        cells = [spread([100 * r[key] for r in found]) for key in ("pruned", "tuned")]
        lines.append(
            f"| {name} | {share:.3f} | {1 / share:.2f}x | {cells[0]} % | {cells[1]} % "
            f"| {len(found)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    home = Path.home() / ".cache" / "irprune" / "finetune"
    parser.add_argument("--net", choices=tuple(BLOCKS), default="resnet56")
    parser.add_argument("--keep", type=float, default=0.476, help="share of the MACs (1 / 2.1)")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="PATTERN", help="only these")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, a file or its folder")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--runs", type=Path, default=home)
    parser.add_argument("--out", type=Path, help="write the page and the rows here")
    options = parser.parse_args()
    model = imported(load_resnet(options.net, SHARED))
    judge = trainer(options, 0)
    full, original = costs(model).macs, judge.score(model).accuracy
    how = makers(options.net, options.keep)
    rows: dict[str, list[Record]] = {}
    budget = f"{options.net}-{options.keep}-{options.epochs}-{options.lr}-{options.batch}"
    runs = options.runs / budget
    claim(runs / "budget.json", {"precision": options.precision, "examples": judge.fingerprint()})
    for seed in options.seeds:
        for name in matching(how, options.rows):
            folder = runs / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
            record = tuned(how[name], folder, trainer(options, seed), full)
            rows.setdefault(name, []).append(record)
            print(name, seed, record, file=sys.stderr, flush=True)
            text = page(options, original, rows)
            if options.out:
                stem = options.out / f"finetune-{options.net}"
                write_text(stem.with_suffix(".json"), json.dumps(rows, indent=1) + "\n")
                write_text(stem.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()

"""The trainings and measurements of the TPU paper's study of VGG-16; `tpu_vgg.py` is the command.

Every job (the original network of a seed, then each pruned ratio on each curve) has a folder, and
is done when ``record.json`` stands in it; until then its checkpoint does, from which it goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import irprune
from irprune.atomic import write_text
from irprune.backends.ort.machine import describe
from irprune.backends.ort.memory import Memory
from irprune.backends.torch.training.data import Augmentation, Data, Draw, Split, open_data
from irprune.backends.torch.training.data.source import Hashed, fingerprint
from irprune.backends.torch.training.loop import fabric_of
from irprune.backends.torch.training.optim import make_optimizer
from irprune.backends.torch.training.trainer import TorchTrainer
from irprune.channels import analyse
from irprune.cost import CostModel
from irprune.explore.settings import DataSet
from irprune.model import Model
from irprune.passes.choice.strength import Scope
from irprune.plan import Plan
from irprune.ranges import check_range
from irprune.recipe import Machine, Recipe
from irprune.shapes import infer
from irprune.tables import read_tables

sys.path.insert(0, str(Path(__file__).parents[1]))
from results import claim
from tpu_curves import BLOCKS, training_cost

Record = dict[str, Any]
Curve = Literal["scaling-reload", "scaling-scratch", "l1-reload"]
CURVES: dict[Curve, str] = {
    "scaling-reload": "criterion=bn-scale normalize=none",
    "scaling-scratch": "criterion=bn-scale normalize=none",
    "l1-reload": "criterion=l1 members=producers",
}
Picked = Literal["first", "spread"]
WARM_UP, STEPS = 3, 10


@dataclass(frozen=True)
class Network:
    """``[network]``: VGG-16 with BatchNorm, for its scales are the scaling factors."""

    size: int
    """Height and width of the images."""
    hidden: int
    """Width of the two hidden fully connected layers."""
    classes: int
    width: float = 1.0
    """Share of the channels of every hidden layer, the fully connected ones included."""

    def __post_init__(self) -> None:
        check_range(self, "(0, inf)", "width")


@dataclass(frozen=True)
class Sweep:
    """``[sweep]``: what is pruned and looked at."""

    ratios: tuple[float, ...]
    scope: Scope = "local"
    """`local`: the same ratio in every convolution; `global`: ranked over all of them."""
    device: str = "tpu-v2"
    """Whose layout the analytic model has."""
    images: int | None = None
    """Training examples that are used; None: all."""
    tested: int | None = None
    """Test examples that are used; None: all."""
    picked: Picked = "first"
    """Which those are where they are not all: `spread` also picks from files sorted by class."""

    def __post_init__(self) -> None:
        check_range(self, "[0, 1)", "ratios")
        check_range(self, "[1, inf)", "images", "tested")


@dataclass(frozen=True)
class Study:
    """A configuration."""

    network: Network
    data: DataSet
    train: Recipe
    sweep: Sweep
    machine: Machine = field(default_factory=Machine)

    def identity(self) -> Record:
        """What decides the results of a job, besides its curve, its ratio and its seed."""
        found = asdict(self) | {"precision": self.machine.precision}
        del found["machine"], found["train"]["seed"], found["sweep"]["ratios"]
        return json.loads(json.dumps(found))


class OutOfTime(Exception):
    """The minutes are over; what was done so far stays."""


def read_study(path: Path) -> Study:
    return read_tables(Study, path)


def vgg16(how: Network) -> nn.Module:
    """13 convolutions and 3 fully connected layers, 15.2 M parameters for CIFAR-10."""
    wide: Callable[[int], int] = lambda n: max(1, round(n * how.width))  # noqa: E731
    layers: dict[str, nn.Module] = {}
    channels = 3
    for block, (count, filters) in enumerate(BLOCKS, 1):
        for number in range(1, count + 1):
            name = f"{block}_{number}"
            layers[f"conv{name}"] = nn.Conv2d(channels, wide(filters), 3, padding=1, bias=False)
            channels = wide(filters)
            layers[f"bn{name}"] = nn.BatchNorm2d(channels)
            layers[f"relu{name}"] = nn.ReLU()
        layers[f"pool{block}"] = nn.MaxPool2d(2)
    layers["flatten"] = nn.Flatten()
    features = channels * (how.size // 2 ** len(BLOCKS)) ** 2
    for name in ("fc6", "fc7"):
        layers[name], layers[f"{name}_relu"] = nn.Linear(features, wide(how.hidden)), nn.ReLU()
        features = wide(how.hidden)
    layers["fc8"] = nn.Linear(features, how.classes)
    module = nn.Sequential()
    for name, layer in layers.items():
        module.add_module(name, layer)
    return module


def pipeline(curve: Curve, ratio: float, scope: Scope) -> str:
    """Return how the networks of a curve are pruned."""
    options = f"{CURVES[curve]} ratio={ratio:g} scope={scope} skip=fc*"
    return f"normalize, prune{{{options}}}, compact"


@dataclass(frozen=True)
class Part:
    """The examples of a data set that a sweep uses."""

    whole: Data
    sweep: Sweep

    @property
    def classes(self) -> int:
        return self.whole.classes

    @property
    def shape(self) -> tuple[int, ...]:
        return self.whole.shape

    @property
    def file(self) -> str | None:
        return self.whole.file

    def size(self, split: Split) -> int:
        most = self.sweep.images if split == "train" else self.sweep.tested
        return self.whole.size(split) if most is None else min(most, self.whole.size(split))

    def content_hash(self) -> str | None:
        return self.whole.content_hash() if isinstance(self.whole, Hashed) else None

    def batches(self, split: Split, draws: Iterable[Draw], device: torch.device) -> Iterator[Any]:
        if self.sweep.picked == "spread":
            all_, used = self.whole.size(split), self.size(split)
            draws = (replace(draw, indices=draw.indices * all_ // used) for draw in draws)
        return self.whole.batches(split, draws, device)


@dataclass(frozen=True)
class Runs:
    """The jobs of a study in a folder."""

    study: Study
    folder: Path
    data: Path
    end: float = float("inf")
    """The moment, by `time.monotonic`, from which no further epoch is begun."""
    log: Callable[[str], None] = lambda message: None

    def run(self, seeds: Iterable[int]) -> None:
        """Do the jobs that are not done yet (OutOfTime)."""
        data = self.examples()
        options = self.study.identity() | {"examples": fingerprint(data)}
        claim(self.folder / "study.json", options)
        for seed in seeds:
            recipe = replace(self.study.train, seed=seed)
            trainer = TorchTrainer(data, recipe, self.study.machine, self.log)
            original = self._original(trainer, seed)
            for ratio in self.study.sweep.ratios:
                for curve in CURVES:
                    self._pruned(trainer, original, curve, ratio, seed)

    def records(self) -> list[Record]:
        """Return what is done, of all seeds."""
        found = sorted(self.folder.glob("*/*/record.json"))
        return [json.loads(path.read_text()) for path in found]

    def examples(self) -> Data:
        """Open the data set, of which some examples may be left out."""
        table, sweep = self.study.data, self.study.sweep
        found = open_data(
            table.name,
            self.data,
            mean=table.mean,
            std=table.std,
            augmentation=Augmentation(table.crop, table.flip),
            size=table.size,
            workers=table.workers,
        )
        return Part(found, sweep)

    def _original(self, trainer: TorchTrainer, seed: int) -> Model:
        """Return the trained original."""
        folder = self.folder / f"seed-{seed}" / "original"
        if not (folder / "record.json").is_file():
            network = self.study.network
            example = torch.zeros(2, 3, network.size, network.size)
            model = irprune.from_torch(vgg16(network).eval(), (example,))
            model = irprune.run("normalize", model, verify=False).model
            trainer.initialise(model, seed)
            self._job(trainer, model, folder, model, Plan.empty(), curve="original", seed=seed)
        return irprune.load(folder / "model.onnx")

    def _pruned(
        self, trainer: TorchTrainer, original: Model, curve: Curve, ratio: float, seed: int
    ) -> None:
        folder = self.folder / f"seed-{seed}" / f"{curve}-{ratio:g}"
        if (folder / "record.json").is_file():
            return
        result = irprune.run(pipeline(curve, ratio, self.study.sweep.scope), original)
        if curve == "scaling-scratch":
            trainer.initialise(result.model, seed)
        self._job(trainer, result.model, folder, result.base, result.plan, curve, seed, ratio)

    def _job(
        self,
        trainer: TorchTrainer,
        model: Model,
        folder: Path,
        base: Model,
        plan: Plan,
        curve: str,
        seed: int,
        ratio: float = 0.0,
    ) -> None:
        """Train a network, measure it and write its record."""
        name = f"{curve}, {ratio:.0%}, seed {seed}"
        self.log(f"{name}: training")
        for epoch in range(1, self.study.train.epochs + 1):  # each goes on from the checkpoint
            if time.monotonic() > self.end:
                raise OutOfTime
            fitted = trainer.fit(model, folder, last=epoch)
        score = fitted.score
        model.save(folder / "model.onnx")
        infer(model.ir)
        costs = CostModel(model.ir.graph).full()
        row = {
            "curve": curve,
            "ratio": ratio,
            "seed": seed,
            "accuracy": score.accuracy,
            "loss": score.loss,
            "params": costs.params,
            "macs": costs.macs,
            **apart(folder / "model.onnx", self.study),
            **self._modelled(base, plan),
        }
        if curve != "original":
            (folder / "model.onnx").unlink()
        self.log(f"{name}: accuracy {score.accuracy:.2%}, step {row['step_s']:.3f} s")
        write_text(folder / "record.json", json.dumps(row, indent=1, allow_nan=False) + "\n")
        (folder / "checkpoint.pt").unlink(missing_ok=True)

    def _modelled(self, base: Model, plan: Plan) -> Record:
        """Return step time and memory on a device that pads, by the analytic model."""
        infer(base.ir)
        channels = analyse(base.ir.graph)
        at = channels.lengths(channels.keep_of(plan))[None]
        batch = base.ir.graph.inputs[0].shape[0]  # type: ignore[index]
        symbols = {str(batch.value): self.study.train.batch}  # type: ignore[union-attr]
        found = training_cost(channels, at, self.study.sweep.device, symbols)
        return {
            "model_step_s": float(found["step"][0]) / 1e3,
            "model_memory_bytes": float(found["memory"][0]) * 2**20,
        }


def apart(path: Path, study: Study) -> Record:
    """Measure training steps in a process of its own, whose memory nothing else has grown."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, path, study).result()


def measured(path: Path, study: Study) -> Record:
    """Return median seconds of a training step and bytes of training memory.

    The steps go on from the last epoch's weights, on one batch of noise: the device's allocator
    tells the peak, on a CPU the growth of the resident set over that before the network is lowered.
    """
    fabric = fabric_of(study.machine)
    cuda = fabric.device.type == "cuda"
    model = irprune.load(path)
    memory = Memory(None)
    module: nn.Module = irprune.to_torch(model).train()
    if study.machine.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(study.train.optimizer, module.parameters())
    module, optimizer = fabric.setup(module, optimizer)
    random, network = np.random.default_rng(0), study.network
    shape = (study.train.batch, 3, network.size, network.size)
    x = torch.from_numpy(random.standard_normal(shape, np.float32)).to(fabric.device)
    if study.machine.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(random.integers(0, network.classes, len(x))).to(fabric.device)
    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        loss = functional.cross_entropy(module(x).float(), y)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else memory.peak()
    return {
        "step_s": median(seconds[WARM_UP:]),
        "memory_bytes": peak,
        "hardware": torch.cuda.get_device_name() if cuda else describe()["cpu"],
        "threads": torch.get_num_threads(),
    }

"""What an iterative run is told: the tables of its TOML file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from irprune.errors import IrpruneError
from irprune.explore.settings import Settings, read_settings
from irprune.frontends.source import CAFFE
from irprune.ranges import check_range
from irprune.recipe import Recipe

Method = Literal["ilp", "iap", "aiap"]
Counting = Literal["paper", "physical"]


@dataclass(frozen=True)
class Network:
    """``[model]``: what is pruned."""

    source: str
    """An ONNX file, a prototxt, or ``file.py:factory``, which is executed; relative to the
    configuration."""
    weights: Literal["given", "fresh"] = "given"
    """`fresh`: drawn anew by the seed, as torch initialises its layers."""
    caffemodel: str | None = None
    """The weights of a prototxt, relative to the configuration; its fillers draw them otherwise."""

    def __post_init__(self) -> None:
        if self.caffemodel is not None and not self.is_caffe:
            raise IrpruneError("goes with a prototxt", node="model.caffemodel")

    @property
    def is_caffe(self) -> bool:
        return self.source.endswith(CAFFE)


@dataclass(frozen=True)
class Pruning:
    """``[prune]``: how each round selects filters.

    `ilp` and `iap` remove a share of the *remaining* filters of every layer, with the smallest
    L1 norms or mean activations; `aiap` those whose mean activation is at most a threshold.
    """

    method: Method = "iap"
    conv: tuple[float, ...] = (0.1,)
    """Share removed from convolutions in rounds 1, 2, ...; the last one holds from then on."""
    dense: tuple[float, ...] = (0.2,)
    activation: Literal["mean", "sum"] = "mean"
    """`mean` over space, as the paper says, or `sum` over it, as its formula has it."""
    samples: int = 60
    """Training examples that activations are measured on."""
    step: float = 0.01
    """λ: what the threshold grows by when a round removes too little."""
    hold: int = 3
    """The threshold is 0 up to this round."""
    enough: float = 0.01
    """A round that removes at least this share of the original parameters is enough."""
    least: int = 1
    """Filters that every layer keeps, in each of its groups where it has some."""
    skip: tuple[str, ...] = ()
    """Patterns of the weights, or their nodes, whose layers keep all filters."""
    verify: bool = True
    """Prove each round's compaction."""

    def __post_init__(self) -> None:
        if not self.conv or not self.dense:
            raise IrpruneError("conv and dense need the share of one round at least")
        check_range(self, "[0, 1)", "conv", "dense", "enough")
        check_range(self, "[1, inf)", "samples", "least")
        check_range(self, "(0, inf)", "step")
        check_range(self, "[0, inf)", "hold")


@dataclass(frozen=True)
class Rewinding:
    """``[rewind]``: where retraining starts after each round."""

    epoch: int
    """k: retraining runs from here to the end of the recipe."""
    what: Literal["weights", "learning-rate"] = "weights"
    """`weights`: to their values at epoch k, with the learning rate; or the latter alone."""


@dataclass(frozen=True)
class Objective:
    """``[objective]``: the run ends after the first round that meets any of these."""

    rounds: int = 25
    accuracy_loss: float | None = None
    """Test accuracy below the original's by more than this."""
    compression: float | None = None
    """Original parameters over remaining ones."""
    counting: Counting = "paper"
    """Which parameters count: see `irprune.explore.iterate.measure`."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "rounds", "compression")
        check_range(self, "[-1, 1]", "accuracy_loss")


@dataclass(frozen=True)
class Config(Settings):
    """A whole configuration."""

    model: Network
    rewind: Rewinding
    prune: Pruning = field(default_factory=Pruning)
    objective: Objective = field(default_factory=Objective)
    pretrained: bool = False
    """The model's weights are those of a trained network: round 0 only measures it."""
    latency: bool = True
    """Time each round's model with onnxruntime."""

    def __post_init__(self) -> None:
        if not 0 <= self.rewind.epoch < self.train.epochs:
            reason = f"epoch = {self.rewind.epoch} must lie in [0, {self.train.epochs})"
            raise IrpruneError(reason, node="rewind.epoch")
        if self.machine.devices != 1:
            reason = "iterative pruning trains in one process"
            raise IrpruneError(reason, node="machine.devices", mend="set devices = 1")
        if self.pretrained and self.rewind.what == "weights":
            raise IrpruneError(
                "a pretrained network has no weights of an earlier epoch",
                node="rewind.what",
                mend="use learning-rate, or pretrained = false",
            )
        if self.pretrained and self.model.weights == "fresh":
            raise IrpruneError("a pretrained network keeps its weights", node="model.weights")

    def starting(self, caffemodel: str) -> Self:
        if not self.model.is_caffe or self.model.caffemodel is not None:
            return self
        return replace(self, model=replace(self.model, caffemodel=caffemodel))

    def identity(self) -> dict[str, Any]:
        """What decides the results: not the objective, nor what of the machine only rounds."""
        found = asdict(self)
        del found["objective"], found["latency"]
        del found["model"]["caffemodel"]  # the weights in it count
        return found | {"train": _told(self.train), "machine": self.machine.identity()}


def read_config(path: Path | str) -> Config:
    """Read a configuration (IrpruneError naming file, key and mend)."""
    return read_settings(Config, path)


def _told(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as runs are told apart by; those from before `steps` go on."""
    found = asdict(recipe)
    if recipe.steps is None:
        del found["steps"]
    return found

"""Caffe's solver files: how a network is trained, from the same text format as the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from os.path import isfile
from pathlib import Path

import numpy as np

from irprune.errors import IrpruneError
from irprune.frontends.caffe.message import Field, Message
from irprune.frontends.caffe.network import Network, network_of, read_network
from irprune.frontends.caffe.text import read

TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_NEEDS = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power",),
    "sigmoid": ("gamma", "stepsize"),
}
"""The learning rate policies, and which fields each of them uses."""
_NO_MATTER = (
    *("ap_version", "average_loss", "debug_info", "device_id", "display", "eval_type"),
    *("layer_wise_reduce", "snapshot_after_train", "snapshot_diff", "snapshot_format"),
    *("solver_mode", "test_compute_loss", "test_initialization"),
)
_NETS = ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param")


@dataclass(frozen=True)
class Solver:
    """What a solver file says, in its own words; optional fields have Caffe's defaults."""

    file: Path | str | None
    base_lr: float
    lr_policy: str
    max_iter: int
    type: str = "SGD"
    gamma: float = 0.0
    power: float = 0.0
    stepsize: int = 0
    stepvalue: tuple[int, ...] = ()
    momentum: float = 0.0
    momentum2: float = 0.999
    delta: float = 1e-8
    rms_decay: float = 0.99
    weight_decay: float = 0.0
    regularization_type: str = "L2"
    clip_gradients: float | None = None
    iter_size: int = 1
    random_seed: int | None = None
    test_iter: tuple[int, ...] = ()
    test_interval: int = 0
    snapshot: int = 0
    snapshot_prefix: str = ""
    train_stages: tuple[str, ...] = ()
    test_stages: tuple[tuple[str, ...], ...] = ()
    train_net: Field | None = None
    """A path or a nested network, as the next ones."""
    test_nets: tuple[Field, ...] = ()
    weights: tuple[str, ...] = ()
    """Caffemodels that training starts from."""
    unknown: tuple[Field, ...] = field(default=(), compare=False, repr=False)
    """The fields that Caffe does not know."""
    spots: Mapping[str, Field] = field(default_factory=dict, compare=False, repr=False)
    """Where each field stands that is given, for errors."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each field that Caffe does not know, with its place."""
        return tuple(f"{one.place}: unknown field `{one.name}`" for one in self.unknown)

    def rate(self, iteration: int) -> float:
        """The learning rate at an iteration, counted from 0."""
        gamma, power = np.float64(self.gamma), np.float64(self.power)
        with np.errstate(over="ignore"):
            match self.lr_policy:
                case "step":
                    factor = gamma ** (iteration // self.stepsize)
                case "exp":
                    factor = gamma**iteration
                case "inv":
                    factor = (1 + gamma * iteration) ** -power
                case "multistep":
                    factor = gamma ** sum(iteration >= value for value in self.stepvalue)
                case "poly":
                    left = max(0, self.max_iter - iteration)
                    factor = np.float64(left / max(1, self.max_iter)) ** power
                case "sigmoid":
                    factor = 1 / (1 + np.exp(-gamma * (iteration - self.stepsize)))
                case _:
                    factor = np.float64(1)
        return float(self.base_lr * factor)

    def train_network(self) -> Network:
        """The network that is trained (IrpruneError where there is none or it is bad)."""
        if self.train_net is None:
            raise IrpruneError("the solver names no network", file=self.file)
        return self._network(self.train_net, "TRAIN", self.train_stages)

    def test_networks(self) -> list[Network]:
        """The networks that are tested, in order."""
        none: Sequence[tuple[str, ...]] = [()] * len(self.test_nets)
        stages = self.test_stages or none
        return [
            self._network(net, "TEST", stages)
            for net, stages in zip(self.test_nets, stages, strict=True)
        ]

    def _network(self, net: Field, phase: str, stages: Sequence[str]) -> Network:
        if isinstance(net.value, Message):
            return network_of(net.value, phase, stages)
        return read_network(self._locate(net), phase, stages)

    def start(self) -> Path | None:
        """Where the caffemodel lies that training starts from, if one is named.

        Raises:
            TextError: there are several.
        """
        if not self.weights:
            return None
        if len(self.weights) > 1 or "," in self.weights[0]:
            reason = "`weights`: training starts from one caffemodel"
            raise self.spots["weights"].error(reason, "name one")
        return self._place(Path(self.weights[0]))

    def _locate(self, net: Field) -> Path:
        """Find a network file."""
        named = Path(net.str())
        found = self._place(named)
        if isfile(found):
            return found
        raise net.error(f"there is no `{named}`", f"put {named.name} beside the solver")

    def _place(self, named: Path) -> Path:
        """Where a file lies: Caffe's paths start where it was started, so look by name too."""
        folder = Path(self.file or "").parent
        inside = not named.is_absolute() and ".." not in named.parts
        return folder / named if inside and isfile(folder / named) else folder / named.name


def read_solver(path: Path | str) -> Solver:
    """The solver in a prototxt file.

    Raises:
        IrpruneError: the file cannot be read or parsed, or a field is missing or makes no sense.
    """
    return solver_of(read(path))


def solver_of(message: Message) -> Solver:
    """The solver that a message spells; see `read_solver`."""
    if "layer" in message or "layers" in message:
        raise message.error("this is a network, not a solver")
    policy = message.need("lr_policy").one_of(list(_NEEDS))
    for name in _NEEDS[policy]:
        if not message.all(name):
            raise message.need("lr_policy").error(f"policy {policy} needs `{name}`")
    seed, clip = message.int("random_seed", -1), message.float("clip_gradients", -1.0)
    train, tests = _nets(message)
    train_stages, test_stages = _stages(message)
    if test_stages and len(test_stages) != len(tests):
        spot = message.all("test_state")[-1]
        raise spot.error(f"{len(tests)} test networks have {len(test_stages)} states")
    solver = Solver(
        file=message.source.file,
        base_lr=_positive(message.need("base_lr")),
        lr_policy=policy,
        max_iter=_count(message.need("max_iter")),
        type=_type(message),
        gamma=_number(message, "gamma", 0.0),
        power=_number(message, "power", 0.0),
        stepsize=_integer(message, "stepsize", 0, least=1),
        stepvalue=_ascending(message.all("stepvalue")),
        momentum=_number(message, "momentum", 0.0),
        momentum2=_number(message, "momentum2", 0.999),
        delta=_number(message, "delta", 1e-8),
        rms_decay=_number(message, "rms_decay", 0.99),
        weight_decay=_number(message, "weight_decay", 0.0),
        regularization_type=_choice(message, "regularization_type", ("L1", "L2"), "L2"),
        clip_gradients=clip if clip >= 0 else None,
        iter_size=_integer(message, "iter_size", 1, least=1),
        random_seed=seed if seed >= 0 else None,
        test_iter=tuple(_count(value) for value in message.all("test_iter")),
        test_interval=_integer(message, "test_interval", 0),
        snapshot=_integer(message, "snapshot", 0),
        snapshot_prefix=message.str("snapshot_prefix", ""),
        train_stages=train_stages,
        test_stages=test_stages,
        train_net=train,
        test_nets=tests,
        weights=tuple(message.strs("weights")),
    )
    message.ignore(*_NO_MATTER)
    spots = {one.name: one for one in reversed(message.fields)}
    return replace(solver, unknown=tuple(message.unread(skip=_NETS)), spots=spots)


def _type(message: Message) -> str:
    old = message.one("solver_type")
    if old is None:
        return _choice(message, "type", TYPES, "SGD")
    if "type" in message:
        raise old.error("`type` and `solver_type` cannot both be given")
    upper = [name.upper() for name in TYPES]
    return TYPES[upper.index(old.enum(upper))]


def _nets(message: Message) -> tuple[Field | None, tuple[Field, ...]]:
    """The network to train and those to test, as paths or messages."""
    fields = {name: message.all(name) for name in _NETS}
    shared = fields["net"] + fields["net_param"]
    own = fields["train_net"] + fields["train_net_param"]
    if len(own or shared) > 1 or len(shared) > 1:
        raise (own or shared)[-1].error("more than one network is given to train")
    tests = fields["test_net_param"] + fields["test_net"]
    most = max(len(message.all("test_iter")), len(message.all("test_state")), len(tests))
    tests = tests + shared * (most - len(tests))
    train = own or shared
    return (train[0] if train else None), tuple(tests)


def _stages(message: Message) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    states = [message.message("train_state"), *message.messages("test_state")]
    for state in states:
        state.ignore("phase", "level")
    train, *tests = [tuple(state.strs("stage")) for state in states]
    return train, tuple(tests)


def _choice(message: Message, name: str, names: Sequence[str], default: str) -> str:
    found = message.one(name)
    return default if found is None else found.one_of(names)


def _number(message: Message, name: str, default: float) -> float:
    found = message.one(name)
    return default if found is None else _positive(found)


def _integer(message: Message, name: str, default: int, least: int = 0) -> int:
    found = message.one(name)
    return default if found is None else _count(found, least)


def _ascending(found: Sequence[Field]) -> tuple[int, ...]:
    values = tuple(_count(value) for value in found)
    for one, before in zip(found[1:], values, strict=False):
        if one.int() < before:
            raise one.error(f"`{one.name}` must not fall below the one before it")
    return values


def _positive(found: Field) -> float:
    value = found.float()
    if not (isfinite(value) and value >= 0):
        raise found.error(f"`{found.name}` must be zero or more")
    return value


def _count(found: Field, least: int = 0) -> int:
    value = found.int()
    if value < least:
        raise found.error(f"`{found.name}` must be at least {least}")
    return value

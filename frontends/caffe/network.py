"""A Caffe network: its inputs and the layers that stand in it at one phase, level and stages.

All three generations of layer syntax arrive in the current one (see `upgrade.py`). Layers that
work in place keep the same name among bottoms and tops. The extension `module: "name"` of a layer
names the convolution module that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from irprune.errors import IrpruneError
from irprune.frontends.caffe.message import Field, Message, TextError
from irprune.frontends.caffe.text import read
from irprune.frontends.caffe.upgrade import current_layers

PHASES = ("TRAIN", "TEST")
_LARGEST_DIM = 2**31 - 1
_NO_MATTER = ("force_backward", "debug_info")
_NO_MATTER_IN_LAYER = ("param", "phase", "loss_weight", "propagate_down", "blob_share_mode")


@dataclass(frozen=True)
class Param:
    """What a layer says of one of its parameter blobs: None where it says nothing."""

    name: str | None = None
    """Under which the blob is shared."""
    lr_mult: float | None = None
    decay_mult: float | None = None


@dataclass(frozen=True)
class Layer:
    """One layer; `fields` is its whole message in current syntax, `line` where it starts.

    `params[i]` is of its i-th parameter blob; there may be fewer than it has.
    """

    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    fields: Message
    line: int
    module: str | None = None
    params: list[Param] = field(default_factory=list)

    def error(self, reason: str, mend: str | None = None) -> TextError:
        """An error that points at the layer."""
        return self.fields.error(f"layer {self.name} ({self.type}): {reason}", mend)


@dataclass(frozen=True)
class Network:
    """A network; `inputs` are those that no layer makes, each with its shape."""

    name: str
    inputs: list[tuple[str, tuple[int, ...]]]
    layers: list[Layer]
    file: Path | str | None
    fields: Message

    def unread(self) -> Iterator[Field]:
        """Iterate over the fields that nobody asked for: unknown ones, once all is converted."""
        yield from self.fields.unread(skip=("layer", "layers"))
        for layer in self.layers:
            yield from layer.fields.unread()


def read_network(
    path: Path | str,
    phase: str = "TEST",
    stages: Iterable[str] = (),
    level: int = 0,
    inputs: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Network:
    """The network in a prototxt file as it stands at that phase, level and stages.

    `inputs` gives shapes by name: of blobs that nothing in the file makes, or instead of the
    shapes that the file declares.

    Raises:
        IrpruneError: the file cannot be read or parsed, a layer has no known type, reads a blob
            that nothing before it makes, or makes one that is already there.
    """
    return network_of(read(path), phase, stages, level, inputs)


def network_of(
    net: Message,
    phase: str = "TEST",
    stages: Iterable[str] = (),
    level: int = 0,
    inputs: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> Network:
    """The network that a message spells, such as one inside a solver; see `read_network`."""
    if phase not in PHASES:
        raise IrpruneError(f"there is no phase {phase!r}", mend=f"it is {' or '.join(PHASES)}")
    state = net.message("state")
    state.ignore("phase", "level")  # as in Caffe, these are for the caller to say
    rule = _State(phase, level, frozenset([*stages, *state.strs("stage")]))
    net.ignore(*_NO_MATTER)
    shapes = dict(_inputs(net)) | {name: tuple(shape) for name, shape in inputs.items()}
    messages = current_layers(net)
    if not messages:
        raise net.error("the network has no layers", "is this a solver, or another kind of file?")
    standing = [message for message in messages if rule.includes(message)]
    _check_blobs(shapes, standing, {top for message in messages for top in message.strs("top")})
    layers = [_layer(message) for message in standing]
    return Network(net.str("name", ""), list(shapes.items()), layers, net.source.file, net)


@dataclass(frozen=True)
class _State:
    """What the rules of the layers are matched with."""

    phase: str
    level: int
    stages: frozenset[str]

    def includes(self, layer: Message) -> bool:
        include, exclude = layer.messages("include"), layer.messages("exclude")
        if include and exclude:
            raise layer.all("exclude")[0].error("a layer has rules to include or to exclude it")
        met = [self.meets(rule) for rule in include or exclude]
        return any(met) == bool(include)

    def meets(self, rule: Message) -> bool:
        low, high = rule.int("min_level", self.level), rule.int("max_level", self.level)
        wanted, unwanted = rule.strs("stage"), rule.strs("not_stage")
        return (
            rule.enum("phase", PHASES, self.phase) == self.phase
            and low <= self.level <= high
            and self.stages.issuperset(wanted)
            and self.stages.isdisjoint(unwanted)
        )


def _inputs(net: Message) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Iterate over the inputs that the network itself declares: names and shapes."""
    names, shapes = net.all("input"), [shape.all("dim") for shape in net.messages("input_shape")]
    flat = net.all("input_dim")
    if flat and not shapes:
        if len(flat) != 4 * len(names):
            found = f"{len(names)} inputs have {len(flat)} `input_dim`"
            raise flat[-1].error(f"{found}, not four each")
        shapes = [flat[start : start + 4] for start in range(0, len(flat), 4)]
    if len(shapes) != len(names):
        spot = names[-1] if names else net.all("input_shape")[-1]
        raise spot.error(
            f"{len(names)} inputs have {len(shapes)} shapes", "give one input_shape per input"
        )
    seen: set[str] = set()
    for name, dims in zip(names, shapes, strict=True):
        if name.str() in seen:
            raise name.error(f"input `{name.value}` is declared twice")
        seen.add(name.str())
        for dim in dims:
            if not 0 < dim.int() <= _LARGEST_DIM:
                raise dim.error(f"an input cannot have {dim.int()} positions along an axis")
        yield name.str(), tuple(dim.int() for dim in dims)


def _check_blobs(inputs: Iterable[str], layers: list[Message], every: set[str]) -> None:
    """Raise where a layer reads a blob that is not there yet or makes one that is.

    `every` blob may be made at another phase or later.
    """
    made = set(inputs)
    for layer in layers:
        bottoms = [bottom.str() for bottom in layer.all("bottom")]
        for bottom in layer.all("bottom"):
            if bottom.str() in made:
                continue
            mend = "give its shape if it is an input"
            if bottom.str() in every:
                mend = "one after it does, or one that stands at another phase, level or stage"
            elif close := get_close_matches(bottom.str(), sorted(made), 1):
                mend = f"did you mean {close[0]}?"
            raise bottom.error(f"no layer before this one makes `{bottom.value}`", mend)
        for index, top in enumerate(layer.all("top")):
            in_place = index < len(bottoms) and bottoms[index] == top.str()
            if top.str() in made and not in_place:
                raise top.error(f"`{top.value}` is made twice")
            made.add(top.str())


def _layer(message: Message) -> Layer:
    tops, kind = message.strs("top"), message.need("type")
    name = message.str("name", None) or (tops[0] if tops else kind.str())
    params = [
        Param(
            param.str("name", None) or None,
            param.float("lr_mult", None),
            param.float("decay_mult", None),
        )
        for param in message.messages("param")
    ]
    module = message.str("module", None)
    message.ignore(*_NO_MATTER_IN_LAYER)
    bottoms = message.strs("bottom")
    return Layer(name, kind.str(), bottoms, tops, message, message.line, module, params)

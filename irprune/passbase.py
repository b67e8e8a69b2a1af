"""What passes and analyses are, and the context that they run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from irprune.errors import IrpruneError

if TYPE_CHECKING:
    import numpy as np

    from irprune.model import Model
    from irprune.protocols import Bencher, DeviceModel, Runner
    from irprune.training import Differentiator

T = TypeVar("T")


def option(default: T, *, help: str) -> T:
    """A dataclass field that is an option of a pass, with its default and one line of help."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Pass:
    """One step of a pipeline. Fields are options: declare each with `option(default, help=...)`.

    Option types: `int`, `float`, `bool`, `str`, `Literal[...]` of strings, unions of these,
    `tuple[str, ...]` (default `()`), and `... | None` (default `None`). The field `foo_bar` is
    written `foo-bar` in pipeline text. A pass holds no mutable state.
    """

    name: ClassVar[str]
    preserves: ClassVar[tuple[type[Analysis[Any]], ...]] = ()
    """Analyses that stay valid although this pass changed the graph."""
    transforms: ClassVar[bool] = True
    """False when the graph stays untouched (`prune`, `verify`, `print`)."""
    weight_changing: ClassVar[bool] = False
    """True when the base no longer computes the original's function (reconstruction, training)."""

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        """Apply the pass to `model` in place; return what changed, fit for JSON (`{}`: nothing)."""
        raise NotImplementedError


def require_full_width(model: Model, name: str) -> None:
    """Raise IrpruneError where channels of `model` are selected for removal or already gone."""
    if model.plan is not None or model.pending is not None:
        raise IrpruneError(
            f"pass `{name}` edits the graph that the plan refers to",
            mend=f"place `{name}` before `prune`",
        )


@dataclass(frozen=True)
class Analysis(Generic[T]):
    """Something computed from a model and cached. Fields are options and part of the cache key."""

    def compute(self, model: Model, context: Context) -> T:
        raise NotImplementedError


def _silent(message: str) -> None:
    """The log of a context that nobody listens to."""


@dataclass
class Context:
    """What passes and analyses may use besides the model.

    `shapes` and `feeds` are what the user said about graph inputs (by name); `runner` makes a
    runner of model files, `bencher` what times them and `differentiator` what takes derivatives,
    each None where its backend is not installed; `log` takes one progress line; `report` collects
    results, each pass under its own name; `original` is the untouched input of the run.
    """

    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] | None = None
    runner: Callable[[], Runner] | None = None
    bencher: Callable[[], Bencher] | None = None
    device: DeviceModel | None = None
    devices: Callable[[str], DeviceModel] | None = None
    """Other devices, by name."""
    differentiator: Callable[[], Differentiator] | None = None
    log: Callable[[str], None] = _silent
    report: dict[str, Any] = field(default_factory=dict)
    original: Model | None = None
    weights_changed: bool = False
    """A weight-changing pass ran: the base is not expected to equal the original."""
    proved: bool = False
    """The model in its present state has been proved; cleared by every transform."""
    _cache: dict[tuple[int, Analysis[Any]], tuple[Model, Any]] = field(
        default_factory=dict, repr=False
    )

    def get(self, analysis: Analysis[T], model: Model) -> T:
        """The result of `analysis` on `model`, computed at most once until a transform drops it."""
        key = (id(model), analysis)
        if key not in self._cache:
            # The entry holds the model, so its id is not reused while the entry lives.
            self._cache[key] = (model, analysis.compute(model, self))
        return cast(T, self._cache[key][1])

    def changed(self, model: Model, preserves: tuple[type[Analysis[Any]], ...] = ()) -> None:
        """Note that `model` was transformed: drop its analyses except those of the given types."""
        self.proved = False
        self._cache = {
            key: entry
            for key, entry in self._cache.items()
            if key[0] != id(model) or isinstance(key[1], preserves)
        }

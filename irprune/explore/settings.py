"""What everything that trains is told: data set, recipe and machine, and who trains by them.

``[train] solver = "solver.prototxt"``, relative to the file, takes optimiser, schedule, number of
steps, clipping and seed from Caffe, and the weights that a Caffe network starts from; epochs and
batch still stand in the table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_type_hints

from irprune.errors import IrpruneError, naming
from irprune.ranges import check_range
from irprune.recipe import Machine, Recipe
from irprune.tables import from_table, read_toml

if TYPE_CHECKING:
    from irprune.frontends.caffe.solver import Solver
    from irprune.training import Trainer


@dataclass(frozen=True)
class DataSet:
    """``[data]``: see `open_data` of the torch backend."""

    name: str
    path: str | None = None
    """Relative to the configuration."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    crop: int = 0
    flip: bool = False
    size: int = 224
    workers: int = 4

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "crop", "workers")
        check_range(self, "[1, inf)", "size")


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """The tables that every such file has."""

    data: DataSet
    train: Recipe
    machine: Machine = Machine()

    @abstractmethod
    def starting(self, caffemodel: str) -> Self:
        """Return these settings for a network whose weights a solver names."""


S = TypeVar("S", bound=Settings)


def read_settings(kind: type[S], path: Path | str) -> S:
    """Read a file of settings (IrpruneError naming file, key and mend)."""
    path = Path(path)
    table = read_toml(path)
    train = table.get("train")
    named = train.pop("solver", None) if isinstance(train, dict) else None
    settings = from_table(kind, table, path)
    if named is None:
        return settings
    if not isinstance(named, str):
        raise IrpruneError("is no path of a solver", file=path, node="train.solver")
    from irprune.frontends.caffe.solver import read_solver

    solver = read_solver(path.parent / named)
    recipe = _by_caffe(settings.train, solver, table["train"], path)
    start = solver.start()
    settings = replace(settings, train=recipe)
    return settings if start is None else settings.starting(str(start.absolute()))


def asked_for(
    kind: type[S],
    settings: S | Path | str,
    home: Path | str | None,
    *,
    seed: int | None,
    data: Path | str | None,
) -> tuple[S, Path]:
    """Return settings, or those of a file, with what is given instead of their own.

    Args:
        home: the folder that paths in the settings are relative to; by default that of their
            file, or the current one.

    Returns:
        The settings, and the folder that their paths are relative to.
    """
    if isinstance(settings, str | Path):
        home = Path(settings).parent if home is None else home
        settings = read_settings(kind, settings)
    if seed is not None:
        settings = replace(settings, train=replace(settings.train, seed=seed))
    if data is not None:
        path = str(Path(data).absolute())
        settings = replace(settings, data=replace(settings.data, path=path))
    return settings, Path() if home is None else Path(home)


@contextmanager
def placed(kind: type[Settings], settings: Settings | Path | str) -> Iterator[None]:
    """Let errors at a key of settings name the file that these are read from, not a model's."""
    try:
        yield
    except IrpruneError as error:
        if isinstance(settings, str | Path) and _has(kind, error.node or ""):
            error.file = settings
        raise


def _has(kind: Any, place: str) -> bool:
    """Return whether a table has a dotted key."""
    name, _, rest = place.partition(".")
    inner = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    return inner is not None and (not rest or _has(inner, rest))


def open_trainer(settings: Settings, home: Path, log: Callable[[str], None]) -> Trainer:
    """Return who trains by settings (IrpruneError: torch is missing, or the data does not fit)."""
    missing = [name for name in ("torch", "lightning_fabric") if find_spec(name) is None]
    if missing:
        mend = "install the extra: pip install 'irprune[torch]'"
        raise IrpruneError(f"training needs {' and '.join(missing)}", mend=mend)
    from irprune.backends.torch.training.data import Augmentation, open_data
    from irprune.backends.torch.training.trainer import TorchTrainer

    table = settings.data
    data = open_data(
        table.name,
        None if table.path is None else home / table.path,
        mean=table.mean,
        std=table.std,
        augmentation=Augmentation(table.crop, table.flip),
        size=table.size,
        workers=table.workers,
        home=home,
    )
    return TorchTrainer(data, settings.train, settings.machine, log)


def _by_caffe(recipe: Recipe, solver: Solver, given: Mapping[str, Any], path: Path) -> Recipe:
    """Return a recipe as a solver says (IrpruneError: it is said twice).

    What Caffe has no field for is the table's: warm-up, and what its solver leaves out.
    """
    from irprune.frontends.caffe.recipe import recipe_of

    said = set(given)
    if "warmup" in given.get("schedule", {}) and given["schedule"].keys() <= {"warmup", "unit"}:
        said.remove("schedule")
    its = {"optimizer", "schedule", "steps"}
    its |= set() if solver.random_seed is None else {"seed"}
    its |= set() if solver.clip_gradients is None else {"clip"}
    for key in sorted(its & said):
        mend = f"remove it here, or from {solver.file}"
        raise IrpruneError("the solver says it too", file=path, node=f"train.{key}", mend=mend)
    with naming(path):
        return recipe_of(solver, recipe)

"""What everything that trains is told: data set, recipe and machine, and who trains by them.

``[train] solver = "solver.prototxt"``, relative to the file, takes optimiser, schedule, number of
steps, clipping and seed from Caffe; epochs and batch still stand in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from irprune.errors import IrpruneError
from irprune.ranges import check_range
from irprune.recipe import Machine, Recipe
from irprune.tables import from_table, read_toml

if TYPE_CHECKING:
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
class Settings:
    """The tables that every such file has."""

    data: DataSet
    train: Recipe
    machine: Machine = Machine()


S = TypeVar("S", bound=Settings)


def read_settings(kind: type[S], path: Path | str) -> S:
    """Read a file of settings (IrpruneError naming file, key and mend)."""
    path = Path(path)
    table = read_toml(path)
    train = table.get("train")
    solver = train.pop("solver", None) if isinstance(train, dict) else None
    settings = from_table(kind, table, path)
    if solver is None:
        return settings
    return replace(settings, train=_by_caffe(settings.train, solver, set(table["train"]), path))


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
    )
    return TorchTrainer(data, settings.train, settings.machine, log)


def _by_caffe(recipe: Recipe, name: Any, given: set[str], path: Path) -> Recipe:
    """Return a recipe as a solver file says (IrpruneError: it is said twice)."""
    from irprune.frontends.caffe.recipe import recipe_of
    from irprune.frontends.caffe.solver import read_solver

    if not isinstance(name, str):
        raise IrpruneError("is no path of a solver", file=path, node="train.solver")
    solver = read_solver(path.parent / name)
    its = {"optimizer", "schedule", "clip", "steps"}
    if solver.random_seed is not None:
        its.add("seed")
    for key in sorted(its & given):
        mend = f"remove it here, or from {name}"
        raise IrpruneError("the solver says it too", file=path, node=f"train.{key}", mend=mend)
    return recipe_of(solver, recipe)

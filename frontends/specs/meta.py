"""The meta data that Wootz needs and Caffe's solver file lacks (Wootz, sections 4 and 7.1).

    machines = 4

    [dataset]
    name = "cub200"
    directory = "data/cub200"

    [pretrain]                       # of the tuning blocks
    learning-rate = 0.2
    iterations = 10000
    batch-size = 32
    weight-decay = 0.0001

    [finetune]                       # of the assembled networks
    learning-rate = 0.001
    iterations = 30000
    batch-size = 32

JSON with the same keys is read too.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from irprune.frontends.caffe.solver import TYPES
from irprune.frontends.specs.document import Document, Text, decode, parse, read_bytes
from irprune.pipeline.options import choices

T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """What to train and test on."""

    name: str
    directory: str

    def __post_init__(self) -> None:
        _check("name", self.name != "", "must not be empty")
        _check("directory", self.directory != "", "must not be empty")


@dataclass(frozen=True)
class Recipe:
    """How one of the two trainings goes, at a fixed learning rate as in the paper."""

    learning_rate: float
    iterations: int
    batch_size: int
    solver: str = "SGD"
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check("learning_rate", 0 < self.learning_rate < math.inf, "must be positive")
        _check("iterations", self.iterations > 0, "must be positive")
        _check("batch_size", self.batch_size > 0, "must be positive")
        _check("solver", self.solver in TYPES, choices(self.solver, TYPES))
        _check("momentum", 0 <= self.momentum < 1, "must lie in [0, 1)")
        _check("weight_decay", 0 <= self.weight_decay < math.inf, "must not be negative")


@dataclass(frozen=True)
class Meta:
    """All of it."""

    dataset: Dataset
    pretrain: Recipe
    """For the tuning blocks (Wootz: 10,000 steps at 0.2 for ResNets)."""
    finetune: Recipe
    """For the assembled networks (Wootz: 30,000 steps at 0.001)."""
    machines: int = 1

    def __post_init__(self) -> None:
        _check("machines", self.machines > 0, "must be positive")


def read_meta(path: Path | str) -> Meta:
    """The meta data in a TOML or, by its suffix, JSON file (IrpruneError)."""
    path = Path(path)
    form = "json" if path.suffix == ".json" else "toml"
    return parse_meta(decode(read_bytes(path), path), form)


def parse_meta(source: Text, form: str = "toml") -> Meta:
    """The meta data that a text of `form` (`toml` or `json`) spells (SpecError)."""
    document = parse(source, form)
    return _record(Meta, document.data, document, ())


class _Wrong(ValueError):
    """A field with a value that makes no sense."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


def _check(field: str, fine: bool, reason: str) -> None:
    if not fine:
        raise _Wrong(field, reason)


def _record(cls: type[T], table: Any, document: Document, path: tuple[str, ...]) -> T:
    """The table at `path` as the dataclass `cls`; its fields are the keys."""
    where = ".".join(path) or "the file"
    if not isinstance(table, dict):
        raise document.error(*path, reason=f"`{where}` must be a table")
    types = get_type_hints(cls)
    known = {_key(field.name): field for field in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            mend = choices(key, known)
            raise document.error(*path, key, reason=f"unknown key `{key}` in {where}", mend=mend)
    given = {}
    for key, field in known.items():
        if key in table:
            given[field.name] = _value(types[field.name], table[key], document, (*path, key))
        elif field.default is MISSING:
            raise document.error(*path, reason=f"`{key}` is missing in {where}")
    try:
        return cls(**given)
    except _Wrong as error:
        key = _key(error.field)
        raise document.error(*path, key, reason=f"`{key}` {error.reason}") from error


def _value(kind: Any, value: Any, document: Document, path: tuple[str, ...]) -> Any:
    if kind is float and type(value) is int:
        return float(value) if abs(value) < 1 << 53 else math.inf
    if kind in (int, float, str):
        if type(value) is kind:
            return value
        word = {int: "an integer", float: "a number", str: "text"}[kind]
        raise document.error(*path, reason=f"`{path[-1]}` must be {word}")
    return _record(kind, value, document, path)


def _key(field: str) -> str:
    return field.replace("_", "-")

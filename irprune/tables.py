"""From TOML tables to dataclasses: every key is known, typed and checked, or refused by name.

NaN and infinity fit no field: they would pass every comparison that guards a run.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from irprune.errors import IrpruneError

T = TypeVar("T")


def read_tables(cls: type[T], path: Path) -> T:
    """Read a TOML file as a dataclass (IrpruneError naming file, key and mend)."""
    return from_table(cls, read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file (IrpruneError)."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise IrpruneError(error.strerror or str(error), file=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise IrpruneError(f"not TOML: {error}", file=path) from error


def from_table(cls: type[T], table: Mapping[str, Any], file: Path, key: str = "") -> T:
    """Make a dataclass from a table; its fields are the keys, fields of dataclasses sub-tables."""
    types, known = get_type_hints(cls), {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    given = {}
    for name, value in table.items():
        place = f"{key}.{name}" if key else name
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            mend = f"{hint}known: {', '.join(known)}"
            raise IrpruneError("unknown key", file=file, node=place, mend=mend)
        given[name] = _value(types[name], value, file, place)
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            place = f"{key}.{name}" if key else name
            raise IrpruneError("is missing", file=file, node=place, mend=_wanted(types[name]))
    try:
        return cls(**given)
    except IrpruneError as error:
        error.file, error.node = error.file or file, error.node or (f"[{key}]" if key else None)
        raise


def _value(kind: Any, value: Any, file: Path, place: str) -> Any:
    for arm in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if is_dataclass(arm) and isinstance(value, dict):
            return from_table(arm, value, file, place)  # type: ignore[arg-type]
        if get_origin(arm) is Literal and value in get_args(arm) and isinstance(value, str):
            return value
        if get_origin(arm) is tuple:
            member = get_args(arm)[0]
            # One number stands for a list of one.
            items = value if isinstance(value, list) else [value]
            if all(_fits(member, item) for item in items):
                return tuple(_plain(member, item) for item in items)
        elif _fits(arm, value):
            return _plain(arm, value)
    mend = _wanted(kind)
    raise IrpruneError(f"{value!r} does not fit", file=file, node=place, mend=mend)


def _fits(kind: Any, value: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return kind in (int, str, bool) and type(value) is kind


def _plain(kind: Any, value: Any) -> Any:
    return float(value) if kind is float else value


def _wanted(kind: Any) -> str:
    """Say which values a type takes."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_wanted(arm) for arm in get_args(kind) if arm is not NoneType)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_wanted(get_args(kind)[0])}s"
    if is_dataclass(kind):
        return "a table"
    return {int: "integer", float: "finite number", str: "text", bool: "true or false"}.get(
        kind, str(kind)
    )

"""Options of passes: from pipeline elements to pass objects and back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from irprune.errors import IrpruneError
from irprune.passbase import Pass
from irprune.pipeline.language import Element, Option, Pipeline, Value, Where, print_value
from irprune.pipeline.registry import PASSES, PRESETS, load_pass


def resolve(pipeline: Pipeline, passes: Mapping[str, str] = PASSES) -> tuple[Pass, ...]:
    """The pass objects that a parsed pipeline names.

    Unknown names are found before any pass is imported; then every option is typed
    (PipelineError).
    """
    for element in pipeline.elements:
        if element.name not in passes:
            mend = choices(element.name, [*passes, *PRESETS])
            raise element.where.error(f"unknown pass `{element.name}`", mend)
        if element.body is not None:
            reason = f"pass `{element.name}` takes no pipeline in parentheses"
            raise element.where.error(reason, "options stand in braces")
    return tuple(_resolve(element, passes) for element in pipeline.elements)


def element_of(pass_: Pass) -> Element:
    """The pipeline element that names `pass_`, with the options that differ from their defaults."""
    options = []
    for field in fields(pass_):
        value = getattr(pass_, field.name)
        if value != field.default or type(value) is not type(field.default):
            values = value if isinstance(value, tuple) else (value,)
            options.append(Option(_key(field), values))
    return Element(pass_.name, tuple(options))


def pipeline_of(passes: Iterable[Pass]) -> Pipeline:
    """The pipeline that names `passes`; its text is the canonical one."""
    return Pipeline(tuple(element_of(pass_) for pass_ in passes))


def choices(given: str, known: Iterable[str]) -> str:
    """The mend for an unknown name: the nearest known one, and all of them."""
    known = sorted(set(known))
    near = difflib.get_close_matches(given, known, 1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"{hint}known: {', '.join(known) or 'none'}"


def describe(cls: type[Pass]) -> list[dict[str, Any]]:
    """One row per option of a pass: `name`, `type`, `default` (pipeline text) and `help`."""
    types = get_type_hints(cls)
    return [
        {
            "name": _key(field),
            "type": describe_type(types[field.name]),
            "default": _default_text(field),
            "help": field.metadata.get("help", ""),
        }
        for field in fields(cls)
    ]


def describe_type(kind: Any) -> str:
    """An option type in the words of the pipeline language."""
    origin, arms = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return "|".join(describe_type(arm) for arm in arms if arm is not NoneType)
    if origin is Literal:
        return "|".join(str(arm) for arm in arms)
    if origin is tuple:
        return f"{describe_type(arms[0])},..."
    names = {int: "integer", float: "number", bool: "true|false", str: "text"}
    return names[kind]


def _key(field: Field[Any]) -> str:
    return field.name.replace("_", "-")


def _default_text(field: Field[Any]) -> str | None:
    if field.default is MISSING or field.default is None or field.default == ():
        return None
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return ",".join(print_value(value) for value in values)


def _resolve(element: Element, passes: Mapping[str, str]) -> Pass:
    try:
        cls = load_pass(element.name, passes)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "irprune":
            raise
        mend = f"install it to use `{element.name}`"
        raise element.where.error(f"package {error.name} is not installed", mend) from error
    types = get_type_hints(cls)
    known = {_key(field): field for field in fields(cls)}
    given: dict[str, Any] = {}
    for option in element.options:
        if option.key not in known:
            reason = f"pass `{element.name}` has no option `{option.key}`"
            raise option.where.error(reason, choices(option.key, known))
        field = known[option.key]
        given[field.name] = _typed(option, types[field.name])
    try:
        return cls(**given)
    except (IrpruneError, ValueError) as error:
        raise _spot(element, str(error)).error(str(error)) from error


def _spot(element: Element, reason: str) -> Where:
    """Where to point: at the value of the option that a reason starts with, else at the pass."""
    word = reason.replace("=", " ").partition(" ")[0]
    return next((o.spots[0] for o in element.options if o.key == word and o.spots), element.where)


def _typed(option: Option, kind: Any) -> Any:
    """The values of an option as its declared type."""
    arms = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    for arm in arms:
        if get_origin(arm) is tuple:
            member = get_args(arm)[0]
            return tuple(
                _single(option, value, spot, (member,))
                for value, spot in zip(option.values, option.spots, strict=True)
            )
    if len(option.values) != 1:
        raise option.spots[1].error(f"option `{option.key}` takes one value")
    return _single(option, option.values[0], option.spots[0], arms)


def _single(option: Option, value: Value, spot: Where, arms: tuple[Any, ...]) -> Any:
    """One value as the first type among `arms` that takes it; an int is taken where a float is."""
    for arm in arms:
        if get_origin(arm) is Literal:
            if value in get_args(arm) and isinstance(value, str):
                return value
        elif type(value) is arm:
            return value
    if type(value) is int and float in arms:
        return float(value)
    raise _mismatch(option, value, spot, arms)


def _mismatch(option: Option, value: Value, spot: Where, arms: tuple[Any, ...]) -> IrpruneError:
    text = print_value(value)
    wanted = "|".join(describe_type(arm) for arm in arms if arm is not NoneType)
    mend = None
    if isinstance(value, str):
        words = [word for arm in arms if get_origin(arm) is Literal for word in get_args(arm)]
        mend = choices(value, words) if words else None
    elif str in arms:
        mend = f'write {option.key}="{text}"'
    return spot.error(f"option `{option.key}` takes {wanted}, got {text}", mend)

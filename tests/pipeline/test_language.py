"""Pipeline text: grammar, canonical print, options, and errors that point at the spot."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from irprune.errors import IrpruneError, PipelineError
from irprune.passbase import Pass, option
from irprune.pipeline.language import (
    Element,
    Option,
    Pipeline,
    Value,
    parse,
    print_pipeline,
    print_value,
)
from irprune.pipeline.options import describe, element_of, pipeline_of, resolve
from irprune.pipeline.registry import PASSES, PRESETS, load_pass, table


@dataclass(frozen=True)
class Everything(Pass):
    """Has an option of every type."""

    name: ClassVar[str] = "everything"
    count: int = option(3, help="an integer")
    share: float = option(0.5, help="a number")
    loud: bool = option(False, help="a flag")
    label: str = option("x", help="a text")
    skip_names: tuple[str, ...] = option((), help="several texts")
    scope: Literal["local", "global"] = option("local", help="a word")
    align: int | Literal["auto"] = option("auto", help="an integer or a word")
    budget: float | str | None = option(None, help="a number or a quantity")
    most: int | None = option(None, help="an integer or nothing")

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


TOYS = {"everything": f"{__name__}:Everything"}


def one(text: str, passes: Mapping[str, str] = TOYS) -> Any:
    (pass_,) = resolve(parse(text), passes)
    return pass_


def failure(text: str, passes: Mapping[str, str] = TOYS) -> str:
    with pytest.raises(PipelineError) as caught:
        resolve(parse(text), passes)
    return str(caught.value)


# Grammar


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a", "a"),
        ("a,b", "a, b"),
        (" a , b , ", "a, b"),
        ("a{x}", "a{x}"),
        ("a{x=true}", "a{x}"),
        ("a{x=false}", "a{x=false}"),
        ("a{ x = 1\n y = 2 }", "a{x=1 y=2}"),
        ("a{x=1,2,3}", "a{x=1,2,3}"),
        ("a{x=1 , 2}", "a{x=1,2}"),
        ("a{x=-1.50e+3}", "a{x=-1500.0}"),
        ("a{x=1e-5}", "a{x=1e-05}"),
        ("a{x=12ms}", "a{x=12ms}"),
        ("a{x=*.weight,layer1/conv:0}", "a{x=*.weight,layer1/conv:0}"),
        ('a{x="plain"}', "a{x=plain}"),
        ('a{x="two words"}', 'a{x="two words"}'),
        ('a{x="12"}', 'a{x="12"}'),
        ('a{x="true"}', 'a{x="true"}'),
        ('a{x=""}', 'a{x=""}'),
        (r'a{x="q\"b\\"}', r'a{x="q\"b\\"}'),
        ("a # first\n, # then\nb", "a, b"),
        ('a{x="#"}', 'a{x="#"}'),
        ("a(b)", "a(b)"),
        ("a{x}(b, c(d,),)", "a{x}(b, c(d))"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert print_pipeline(parse(text)) == canonical
    assert parse(canonical) == parse(text)


def test_value_types() -> None:
    (element,) = parse('a{x=1,1.0,1e2,true,false,word,"1",-3}').elements
    values = element.options[0].values
    expected = (1, 1.0, 100.0, True, False, "word", "1", -3)
    assert [(type(v), v) for v in values] == [(type(v), v) for v in expected]


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("", "expected a pass name", 0),
        (",", "expected a pass name", 0),
        ("a,,b", "expected a pass name", 2),
        ("a b", "expected `,` or the end", 2),
        ("A", "expected a pass name, got `A`", 0),
        ("a{}", "expected an option name", 2),
        ("a{x", "expected an option name or `}`", 3),
        ("a{x=}", "expected a value", 4),
        ("a{x=1,}", "expected a value", 6),
        ("a{x=1 x=2}", "option `x` is given twice", 6),
        ('a{x="1"y=2}', "expected a space between options", 7),
        ('a{x="1}', "the string never ends", 4),
        ("a{x=1e999}", "the number is too large", 4),
        ("a{x=" + "9" * 5000 + "}", "the number is too large", 4),
        ("a;b", "unexpected `;`", 1),
        ("a(b", "expected `)`", 3),
        ("a()", "expected a pass name", 2),
        ("a)", "expected `,` or the end", 1),
        ("a(" * 60, "nests deeper than 50", 101),
        ("@", "expected a file after `@`", 0),
        ("@missing.pipe", "cannot read pipeline file missing.pipe", 0),
    ],
)
def test_syntax_errors_point_at_the_spot(text: str, reason: str, column: int) -> None:
    with pytest.raises(PipelineError, match=re.escape(reason)) as caught:
        parse(text)
    assert caught.value.offset == column
    shown, mark = str(caught.value).splitlines()[-2:]
    spot = mark.index("^")
    assert shown[spot : spot + 1] == text[column : column + 1]
    assert spot == column + 2 or len(text) > 100  # of a long line a part is shown


VALUES: st.SearchStrategy[Value] = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
NAMES = st.from_regex(r"\A[a-z][a-z0-9-]{0,6}\Z").filter(lambda name: name not in PRESETS)
OPTIONS = st.builds(Option, NAMES, st.lists(VALUES, min_size=1, max_size=3).map(tuple))
PIPELINES: st.SearchStrategy[Pipeline] = st.recursive(
    st.just(Pipeline((Element("leaf"),))),
    lambda inner: st.lists(
        st.builds(
            Element,
            NAMES,
            st.lists(OPTIONS, max_size=2, unique_by=lambda o: o.key).map(tuple),
            st.none() | inner,
        ),
        min_size=1,
        max_size=3,
    ).map(lambda elements: Pipeline(tuple(elements))),
    max_leaves=4,
)


@given(PIPELINES)
def test_any_tree_survives_print_and_parse(tree: Pipeline) -> None:
    assert repr(parse(print_pipeline(tree))) == repr(tree)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_outside_the_grammar_are_not_printed(value: float) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        print_value(value)


# Presets and files


def test_presets_expand_and_take_no_options() -> None:
    assert parse("default, tail") == parse(f"{PRESETS['default']}, tail")
    with pytest.raises(PipelineError, match="preset default takes neither options nor a body"):
        parse("default{x=1}")


def test_files_expand_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "top.pipe").write_text("a,  # comment\n@sub/inner.pipe,\n")
    (tmp_path / "sub" / "inner.pipe").write_text('b, @"the last.pipe"')
    (tmp_path / "sub" / "the last.pipe").write_text("c{x=1}")
    assert print_pipeline(parse("@top.pipe, d", folder=tmp_path)) == "a, b, c{x=1}, d"


@pytest.mark.parametrize("piece", ["#", " ", "#\n", "a{", "a(", "a,", "-", '"\\', "1"])
def test_long_texts_take_linear_time(piece: str) -> None:
    with pytest.raises(PipelineError):
        parse(piece * 50_000 + "\n'")


def test_errors_in_files_name_file_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "bad.pipe").write_text("a,\nb{")
    with pytest.raises(PipelineError) as caught:
        parse("@bad.pipe", folder=tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'bad.pipe'}:2:3: expected an option name",
        "  b{",
        "    ^",
    ]


def test_files_that_include_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.pipe").write_text("a, @loop.pipe")
    with pytest.raises(PipelineError, match="includes itself"):
        parse("@loop.pipe", folder=tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bin.pipe").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PipelineError, match="not UTF-8 text"):
        parse("@bin.pipe", folder=tmp_path)


# Options


def test_options_become_typed_fields() -> None:
    text = (
        "everything{count=4 share=1 loud label=y skip-names=a,b* scope=global align=8 "
        "budget=12ms most=2}"
    )
    found = one(text)
    expected = Everything(4, 1.0, True, "y", ("a", "b*"), "global", 8, "12ms", 2)
    assert found == expected
    assert type(found.share) is float


def test_numbers_and_quantities_share_an_option() -> None:
    assert one("everything{budget=1}").budget == 1.0
    assert one("everything{budget=80MB}").budget == "80MB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "everythin",
            "unknown pass `everythin`; did you mean `everything`? known: default, everything",
        ),
        ("zzz", "unknown pass `zzz`; known: default, everything"),
        (
            "everything{skop=local}",
            "pass `everything` has no option `skop`; did you mean `scope`? known: align, budget, ",
        ),
        (
            "everything{scope=locl}",
            "option `scope` takes local|global, got locl; did you mean `local`? known: ",
        ),
        ("everything{count=1.5}", "option `count` takes integer, got 1.5"),
        ("everything{count=true}", "option `count` takes integer, got true"),
        ("everything{count}", "option `count` takes integer, got true"),
        ("everything{loud=1}", "option `loud` takes true|false, got 1"),
        ("everything{label=12}", 'option `label` takes text, got 12; write label="12"'),
        ("everything{share=half}", "option `share` takes number, got half"),
        ("everything{count=1,2}", "option `count` takes one value"),
        (
            "everything{align=atuo}",
            "option `align` takes integer|auto, got atuo; did you mean `auto`?",
        ),
        ("everything{count=-1}", "count must not be negative"),
        ("everything(everything)", "pass `everything` takes no pipeline in parentheses"),
    ],
)
def test_option_errors(text: str, message: str) -> None:
    assert failure(text).startswith(message)


def test_option_errors_point_at_the_value() -> None:
    assert failure("everything{count=1 skip-names=a,2}").splitlines() == [
        'option `skip-names` takes text, got 2; write skip-names="2"',
        "  everything{count=1 skip-names=a,2}",
        "                                  ^",
    ]


def test_every_name_resolves_before_any_option() -> None:
    assert failure("everything{nope}, missing").startswith("unknown pass `missing`")


def test_describe_lists_options() -> None:
    rows = {row["name"]: row for row in describe(Everything)}
    assert rows["skip-names"] == {
        "name": "skip-names",
        "type": "text,...",
        "default": None,
        "help": "several texts",
    }
    assert (rows["align"]["type"], rows["align"]["default"]) == ("integer|auto", "auto")
    assert rows["most"]["type"] == "integer"


def test_the_registry_refuses_duplicates() -> None:
    with pytest.raises(ValueError, match="`a` is registered twice"):
        table([("a", "m:A"), ("b", "m:B"), ("a", "m:C")])


# Every registered pass


def _strategy(kind: Any) -> st.SearchStrategy[Any]:
    origin, arms = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return st.one_of([_strategy(arm) for arm in arms])
    if origin is Literal:
        return st.sampled_from(arms)
    if origin is tuple:
        assert arms[1] is Ellipsis
        return st.lists(_strategy(arms[0]), max_size=3).map(tuple)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 64) | st.integers(),
        float: st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        str: st.text(max_size=8),
        NoneType: st.none(),
    }
    return plain[kind]


REGISTERED = [Everything, *(load_pass(name) for name in PASSES)]
NEEDED: dict[str, dict[str, Any]] = {"prune": {"ratio": 0.5}}
"""What a pass must be told: its options do not all have usable defaults."""


@pytest.mark.parametrize("cls", REGISTERED, ids=lambda cls: cls.name)
@given(data=st.data())
def test_every_pass_survives_print_and_parse(cls: type[Pass], data: st.DataObject) -> None:
    types = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    varied = data.draw(st.lists(st.sampled_from(names), max_size=4, unique=True)) if names else []
    values = {name: data.draw(_strategy(types[name])) for name in varied}
    try:
        pass_ = cls(**{**NEEDED.get(cls.name, {}), **values})
    except (IrpruneError, ValueError):
        assume(False)
    text = print_pipeline(pipeline_of([pass_]))
    again = one(text, {**PASSES, **TOYS})
    assert (again, repr(again)) == (pass_, repr(pass_))


@pytest.mark.parametrize("cls", REGISTERED, ids=lambda cls: cls.name)
def test_every_option_can_be_written_and_has_help(cls: type[Pass]) -> None:
    types = get_type_hints(cls)
    for field in fields(cls):
        kind = types[field.name]
        assert field.metadata["help"]
        assert field.default is not MISSING
        assert get_origin(kind) is not tuple or field.default == ()
        assert NoneType not in get_args(kind) or field.default is None
    if cls.name not in NEEDED:
        assert element_of(cls()) == Element(cls.name)
    assert cls.__doc__


def test_every_preset_resolves() -> None:
    for name in PRESETS:
        assert resolve(parse(name))
        assert name not in PASSES

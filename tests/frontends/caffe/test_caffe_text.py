"""Protobuf text format: what it spells, where it stands, and errors that point at the spot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from caffe_schema import ENUM, MESSAGES
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError
from irprune.frontends.caffe.text import Bareword, Message, TextError, parse, read


def plain(message: Message) -> list[tuple[str, Any]]:
    """A message as nested lists of names and values."""
    return [
        (one.name, plain(one.value) if isinstance(one.value, Message) else one.value)
        for one in message.fields
    ]


def failure(text: str) -> TextError:
    with pytest.raises(TextError) as caught:
        parse(text, "net.prototxt")
    return caught.value


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", []),
        (" # only a comment", []),
        ("a: 1", [("a", 1)]),
        ("a:1 b:2", [("a", 1), ("b", 2)]),
        ("a: 1, b: 2; c: 3,", [("a", 1), ("b", 2), ("c", 3)]),
        ("a: 1 a: 2", [("a", 1), ("a", 2)]),
        ("a: [1, 2] b: []", [("a", 1), ("a", 2)]),
        ("a: [{b: 1}, <b: 2>]", [("a", [("b", 1)]), ("a", [("b", 2)])]),
        ("a { b: 1 }", [("a", [("b", 1)])]),
        ("a: { b < c: 1 > }", [("a", [("b", [("c", 1)])])]),
        ("a {}# {\nb: 2 # }", [("a", []), ("b", 2)]),
        ("a: MAX b: true", [("a", "MAX"), ("b", "true")]),
        ("a: -3 b: - 3 c: -.5", [("a", -3), ("b", -3), ("c", -0.5)]),
        (
            "a: 1. b: 1.5f c: 2F d: 1e-3 e: 1.e2",
            [("a", 1.0), ("b", 1.5), ("c", 2.0), ("d", 1e-3), ("e", 100.0)],
        ),
        ("a: 0x1F b: 017 c: 0 d: 08", [("a", 31), ("b", 15), ("c", 0), ("d", 8)]),
        ("a: inf b: -inf c: -Infinity", [("a", "inf"), ("b", "-inf"), ("c", "-Infinity")]),
        ("a: 'x' b: \"y\"", [("a", "x"), ("b", "y")]),
        ("a: 'x' \"y\" # more\n 'z'", [("a", "xyz")]),
        (r"a: 'say \"it\'s\"\n\t\\\?'", [("a", 'say "it\'s"\n\t\\?')]),
        (r"a: '\303\251 \xe9 \u00e9 \U0001F600'", [("a", "é \\xe9 é 😀")]),
        ("a: 'ü'\r\nb: 1\r\n", [("a", "ü"), ("b", 1)]),
    ],
)
def test_text_spells_a_message(text: str, fields: list[tuple[str, Any]]) -> None:
    assert plain(parse(text)) == fields


def test_quoted_and_bare_words_differ() -> None:
    bare, quoted = parse("a: MAX b: 'MAX'").fields
    assert isinstance(bare.value, Bareword)
    assert not isinstance(quoted.value, Bareword)


def test_integers_stay_integers_as_far_as_protobuf_has_them() -> None:
    largest = parse(f"a: {2**64 - 1}").need("a")
    assert largest.int() == 2**64 - 1
    assert parse("a: " + "9" * 6000).need("a").value == math.inf
    assert parse("a: 0x" + "f" * 6000).need("a").value == math.inf


def test_fields_know_where_their_values_stand() -> None:
    message = parse("a: 1\n\n  b { # x\n\tc: [1,\n2] }")
    assert [(f.line, f.column) for f in message.fields] == [(1, 4), (3, 5)]
    inner = message.message("b")
    assert [(f.line, f.column) for f in inner.fields] == [(4, 6), (5, 1)]
    assert inner.fields[1].place == "text:5:1"


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("layer {\n  name: 'a'\n", 1, 7, "this `{` is never closed"),
        ("a < b: 1 }", 1, 10, "expected `>`"),
        ("a: 1\n}", 2, 1, "unexpected `}`: expected a field name"),
        ("a b", 1, 3, "expected `:` or `{` after `a`"),
        ("a", 1, 2, "expected `:` or `{` after `a`"),
        ("a [1]", 1, 3, "expected `:` or `{` after `a`"),
        ("a:", 1, 3, "expected a value for `a`"),
        ("a: }", 1, 4, "expected a value for `a`"),
        ("a: -x", 1, 5, "expected a value for `a`"),
        ("a: - 'x'", 1, 6, "expected a value for `a`"),
        ("a: [1, ]", 1, 8, "expected a value for `a`"),
        ("a: [1 2]", 1, 7, "expected `]`"),
        ("a: 'x\ny'", 1, 4, "the string never ends"),
        ('a: "x', 1, 4, "the string never ends"),
        (r"a: 'b\q'", 1, 6, r"`\q` is no escape"),
        (r"a: '\777'", 1, 5, r"`\777` is no escape"),
        (r"a: '\ud800'", 1, 5, r"`\ud800` is no escape"),
        (r"a: '\u12'", 1, 5, r"`\u` is no escape"),
        ("a: 1.2.3", 1, 4, "not a number"),
        ("a: 3x", 1, 4, "not a number"),
        ("a: 1e", 1, 4, "not a number"),
        ("a: +1", 1, 4, "unexpected `+`"),
        ("a: 1\nb: 2 %", 2, 6, "unexpected `%`"),
        ("1: a", 1, 1, "unexpected `1`: expected a field name"),
        ("a: 1,, b: 2", 1, 6, "unexpected `,`: expected a field name"),
        ("a {" * 101 + "}" * 101, 1, 303, "messages nest deeper than 100"),
    ],
)
def test_errors_point_at_the_spot(text: str, line: int, column: int, reason: str) -> None:
    error = failure(text)
    assert (error.line, error.column, error.reason) == (line, column, reason)
    message, shown, caret = str(error).split("\n")
    assert message.startswith(f"net.prototxt:{line}:{column}: {reason}")
    assert caret.endswith("^")
    assert len(caret) <= len(shown) + 1


def test_the_caret_stands_below_the_spot() -> None:
    assert str(failure("a: 1\n\tb:\t%")).endswith("\n  \tb:\t%\n  \t  \t^")
    assert str(failure("a: 1 %\r\nb: 2")).endswith("\n  a: 1 %\n       ^")


def test_long_lines_are_shown_around_the_spot() -> None:
    _, shown, caret = str(failure("a: 1 " * 1000 + "% " + "b: 2 " * 1000)).split("\n")
    assert len(shown) < 130
    assert shown[caret.index("^")] == "%"


def test_nesting_up_to_the_limit_is_read() -> None:
    assert parse("a {" * 100 + "}" * 100).message("a").fields
    assert len(parse("a { b {} }" * 300).fields) == 300


def test_files_are_read_whatever_their_comments_are_written_in(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xef\xbb\xbfname: 'a\xff' # " + "卷积".encode("gbk"))
    assert read(path).need("name").str() == "a\\xff"


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IrpruneError, match="cannot read the file"):
        read(tmp_path / "missing.prototxt")
    with pytest.raises(IrpruneError, match="cannot read the file"):
        read(tmp_path)
    with pytest.raises(IrpruneError, match="cannot read the file"):
        read("a\0b")
    binary = tmp_path / "net.caffemodel"
    binary.write_bytes(b"\x0a\x05LeNet\0\0")
    with pytest.raises(IrpruneError, match="no text file"):
        read(binary)


@st.composite
def layers(draw: st.DrawFn) -> Any:
    """A layer of Google's protobuf with values of every kind."""
    text = st.text(st.characters(codec="utf-8"), max_size=8)
    layer = MESSAGES["Layer"](name=draw(text), phase=draw(st.integers(0, len(ENUM) - 1)))
    layer.top.extend(draw(st.lists(text, max_size=3)))
    layer.loss_weight.extend(draw(st.lists(st.floats(width=32), max_size=3)))
    layer.flag.extend(draw(st.lists(st.booleans(), max_size=3)))
    layer.size.extend(draw(st.lists(st.integers(0, 2**64 - 1), max_size=3)))
    for _ in range(draw(st.integers(0, 2))):
        layer.filler.add(
            type=draw(text),
            std=draw(st.floats(allow_nan=False)),
            sparse=draw(st.integers(-(2**31), 2**31 - 1)),
        )
    return layer


@given(layers(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_what_google_writes_reads_the_same(
    layer: Any, utf8: bool, one_line: bool, angles: bool, short: bool
) -> None:
    text = text_format.MessageToString(
        layer,
        as_utf8=utf8,
        as_one_line=one_line,
        pointy_brackets=angles,
        use_short_repeated_primitives=short,
    )
    message = parse(text)
    assert message.str("name", "") == layer.name
    assert message.enum("phase", ENUM, None) == ENUM[layer.phase]
    assert message.strs("top") == list(layer.top)
    assert message.ints("size") == list(layer.size)
    assert [one.bool() for one in message.all("flag")] == list(layer.flag)
    for ours, theirs in zip(message.floats("loss_weight"), layer.loss_weight, strict=True):
        assert math.isclose(ours, theirs, rel_tol=1e-6) or math.isnan(ours) == math.isnan(theirs)
    for filler, given_ in zip(message.messages("filler"), layer.filler, strict=True):
        assert filler.str("type", "") == given_.type
        assert filler.float("std", None) == given_.std
        assert filler.int("sparse", None) == given_.sparse
    assert not list(message.unread())


PIECES = st.sampled_from(
    [
        *("a", "layer", ":", "{", "}", "<", ">", "[", "]", ",", ";", "-", "1", ".5", "0x", "1e"),
        *("'x'", '"', "'", "\\", "\\x", "#", "\n", " ", "\t", "true", "inf", "é", "\0"),
        *("\ud800", "\u2028"),
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=40).map("".join)))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    try:
        message = parse(text)
    except TextError as error:
        assert f"{error.line}:{error.column}: {error.reason}" in str(error)
        str(error).encode()
    else:
        assert list(message.unread()) == list(message.fields)


@pytest.mark.parametrize("piece", ["a:'", "a{", "a:[", "9", "a:1 ", "#", '"\\', "\n", "-", "a:''"])
def test_long_texts_take_linear_time(piece: str) -> None:
    try:
        parse(piece * 100_000)
    except TextError as error:
        assert len(str(error)) < 800


@pytest.mark.shared
def test_every_shared_prototxt_parses(shared: Path) -> None:
    paths = sorted((shared / "caffe").rglob("*.prototxt"))
    assert len(paths) > 90
    for path in paths:
        assert read(path).fields

"""Messages: typed access with errors that point at the value, and the fields nobody asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from irprune.frontends.caffe.text import Field, Message, TextError, parse

POOL = ("MAX", "AVE", "STOCHASTIC")


def test_values_come_in_the_type_asked_for() -> None:
    message = parse("i: 3 f: 0.5 s: 'x' t: true z: 0 e: AVE m { i: 4 } n: -inf q: nan")
    assert message.int("i", 0) == 3
    assert message.float("f", 0.0) == 0.5
    assert message.float("i", 0.0) == 3.0
    assert message.float("n", 0.0) == -math.inf
    assert math.isnan(message.float("q", 0.0))
    assert message.str("s", "") == "x"
    assert message.bool("t", False) is True
    assert message.bool("z", True) is False
    assert message.enum("e", POOL, "MAX") == "AVE"
    assert message.enum("z", POOL, "AVE") == "MAX"
    assert message.message("m").int("i", 0) == 4


def test_absent_fields_have_the_default() -> None:
    message = parse("")
    assert message.int("x", 7) == 7
    assert message.int("x", None) is None
    assert message.float("x", 0.5) == 0.5
    assert message.bool("x", True) is True
    assert message.str("x", "y") == "y"
    assert message.enum("x", POOL, "MAX") == "MAX"
    assert not message.message("x").fields
    assert message.all("x") == []
    assert message.one("x") is None
    assert "x" not in message


def test_repeated_fields_come_in_order() -> None:
    message = parse("k: 3 k: [5, 7] w: 0.5 w: 1 t: 'a' t: 'b' m {} m { k: 1 }")
    assert message.ints("k") == [3, 5, 7]
    assert message.floats("w") == [0.5, 1.0]
    assert message.strs("t") == ["a", "b"]
    assert message.messages("m") == [parse(""), parse("k: 1")]
    assert "k" in message


@pytest.mark.parametrize(
    ("text", "ask", "reason"),
    [
        ("x: 1.5", lambda m: m.int("x", 0), "`x` must be an integer, got `1.5`"),
        ("x: '1'", lambda m: m.int("x", 0), '`x` must be an integer, got the string "1"'),
        ("x: one", lambda m: m.float("x", 0), "`x` must be a number, got `one`"),
        ("x: {}", lambda m: m.float("x", 0), "`x` must be a number, got a message"),
        ("x: 2", lambda m: m.bool("x", False), "`x` must be true or false, got `2`"),
        (
            "x: 'true'",
            lambda m: m.bool("x", False),
            '`x` must be true or false, got the string "true"',
        ),
        ("x: bare", lambda m: m.str("x", ""), "`x` must be a quoted string, got `bare`"),
        ("x: 1", lambda m: m.message("x"), "`x` must be a message in braces, got `1`"),
        (
            "x: 'MAX'",
            lambda m: m.enum("x", POOL, ""),
            "must be one of MAX, AVE, STOCHASTIC, unquoted",
        ),
        ("x: 3", lambda m: m.enum("x", POOL, ""), "must be one of MAX, AVE, STOCHASTIC, unquoted"),
        ("x: AVG", lambda m: m.enum("x", POOL, ""), "`x` cannot be AVG; did you mean AVE?"),
        ("x: max", lambda m: m.enum("x", POOL, ""), "`x` cannot be max; did you mean MAX?"),
        ("x: ZZ", lambda m: m.enum("x", POOL, ""), "it is one of MAX, AVE, STOCHASTIC"),
        ("x: 'stepp'", lambda m: m.need("x").one_of(["step"]), "did you mean step?"),
        ("x: 1", lambda m: m.need("x").one_of(["step"]), "`x` must be a quoted string"),
        ("x: 1\nx: 2", lambda m: m.one("x"), "`x` is given twice; first on line 1"),
        ("y: 1", lambda m: m.need("x"), "`x` is missing"),
    ],
)
def test_wrong_values_are_named(text: str, ask: Callable[[Message], Any], reason: str) -> None:
    with pytest.raises(TextError) as caught:
        ask(parse(text, "net.prototxt"))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"net.prototxt:{len(text.splitlines())}:")


def test_errors_of_messages_point_at_their_start() -> None:
    error = parse("a: 1\nlayer {\n}").message("layer").error("no type", "give one")
    assert (error.line, error.column) == (2, 7)
    assert "no type; give one" in str(error)


def names(message: Message, skip: tuple[str, ...] = ()) -> list[str]:
    return [one.name for one in message.unread(skip)]


def test_fields_nobody_asked_for_are_told() -> None:
    message = parse("a: 1 b: 2 c { d: 3 e { f: 4 } } c2 { g: 5 } b: 6")
    assert names(message) == ["a", "b", "c", "c2", "b"]
    message.int("a", 0)
    assert names(message) == ["b", "c", "c2", "b"]
    message.message("c").int("d", 0)
    assert names(message) == ["b", "e", "c2", "b"]
    assert names(message, skip=("b", "c")) == ["c2"]
    message.all("b")
    message.message("c").message("e").ignore("f")
    message.ignore("c2", "absent")
    assert names(message) == []


def test_asking_marks_a_shared_message_wherever_it_stands() -> None:
    inner = parse("conv { pad: 1 }").fields[0]
    moved = Message(
        [Field("convolution_param", inner.value, inner.source, inner.offset)], inner.source, 0
    )
    moved.message("convolution_param").int("pad", 0)
    assert list(inner.message().unread()) == []


def test_messages_compare_by_their_fields_and_print_them() -> None:
    assert parse("a: 1 b { c: 'x' }") == parse("a:1\n\nb<c:'x'>")
    assert parse("a: 1") != parse("a: 2")
    assert parse("a: 1") != 1
    assert repr(parse("a: 1 b { c: 'x' }")) == "Message(a=1, b=Message(c='x'))"

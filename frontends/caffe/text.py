"""Protobuf text format, read without a schema: every value keeps its line and column.

    message = { field } ;
    field   = name ( ":" value | [ ":" ] body ) [ "," | ";" ] ;
    value   = scalar | body | "[" [ value { "," value } ] "]" ;
    body    = "{" message "}" | "<" message ">" ;
    scalar  = string { string } | [ "-" ] ( number | bareword ) ;

`#` starts a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from irprune.errors import IrpruneError
from irprune.frontends.caffe.message import INFINITE, Bareword, Field, Message, Source, TextError
from irprune.tokens import Reader

__all__ = ["Bareword", "Field", "Message", "Source", "TextError", "parse", "read"]

_SPACE = re.compile(r"(?:\s++|#[^\n]*+)*+")
_TOKEN = re.compile(
    r"""(?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>0[xX][0-9a-fA-F]++
                 | (?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+[fF]?+
        )(?![A-Za-z0-9_.])
      | (?P<string>"(?:[^"\\\n]|\\[^\n])*+" | '(?:[^'\\\n]|\\[^\n])*+')
      | (?P<punct>[][{}<>:,;-])
      | (?P<end>\Z)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}
_MAX_DEPTH = 100


def read(path: Path | str) -> Message:
    """The message that a text file holds (IrpruneError where it cannot be read or parsed)."""
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise IrpruneError(f"cannot read the file: {reason}", file=path) from error
    if b"\0" in data:
        raise IrpruneError("this is no text file", file=path, mend="give weights apart from it")
    # Comments come in many encodings; strange bytes become escapes, which names keep apart.
    return parse(data.decode("utf-8-sig", errors="backslashreplace"), path)


def parse(text: str, file: Path | str | None = None) -> Message:
    """The message that `text` spells (TextError with line and column where it spells none)."""
    return _Parser(Source(text, file)).whole()


class _Parser(Reader):
    """Recursive descent over one source."""

    space, pattern = _SPACE, _TOKEN

    def __init__(self, source: Source) -> None:
        self.source = source
        self.depth = 0
        super().__init__(source.text)

    def whole(self) -> Message:
        fields = self._fields()
        if self.token.kind != "end":
            self.fail(f"unexpected `{self.token.text}`: expected a field name")
        return Message(fields, self.source, 0)

    def _fields(self) -> list[Field]:
        fields: list[Field] = []
        while self.token.kind == "name":
            name = self.next().text
            colon = self.take(":")
            if self.token.text not in _CLOSING and not colon:
                self.fail(f"expected `:` or `{{` after `{name}`")
            if self.token.text == "[":
                fields.extend(self._list(name))
            else:
                fields.append(self._value(name))
            if not self.take(","):
                self.take(";")
        return fields

    def _list(self, name: str) -> Iterator[Field]:
        self.next()
        if self.take("]"):
            return
        yield self._value(name)
        while self.take(","):
            yield self._value(name)
        self.expect("]")

    def _value(self, name: str) -> Field:
        start = self.token.start
        value = self._body() if self.token.text in _CLOSING else self._scalar(name)
        return Field(name, value, self.source, start)

    def _body(self) -> Message:
        if self.depth == _MAX_DEPTH:
            self.fail(f"messages nest deeper than {_MAX_DEPTH}")
        self.depth += 1
        opening = self.next()
        fields = self._fields()
        closing = _CLOSING[opening.text]
        if self.token.kind == "end":
            raise self.error(opening.start, f"this `{opening.text}` is never closed")
        self.expect(closing)
        self.depth -= 1
        return Message(fields, self.source, opening.start)

    def _scalar(self, name: str) -> int | float | str:
        if self.token.kind == "string":
            return self._string()
        minus = self.take("-")
        token = self.token
        if token.kind == "number":
            self.next()
            number = _number(token.text)
            return -number if minus else number
        if token.kind == "name" and (not minus or token.text.lower() in INFINITE):
            self.next()
            return Bareword(f"-{token.text}" if minus else token.text)
        self.fail(f"expected a value for `{name}`")

    def _string(self) -> str:
        """One string of all the adjacent ones; byte escapes spell UTF-8."""
        data = bytearray()
        while self.token.kind == "string":
            start, end = self.token.start + 1, self.token.end - 1
            for match in _ESCAPE.finditer(self.text, start, end):
                data += _encode(self.text[start : match.start()])
                data += self._escape(match)
                start = match.end()
            data += _encode(self.text[start:end])
            self.next()
        return data.decode("utf-8", errors="backslashreplace")

    def _escape(self, match: re.Match[str]) -> bytes:
        octal, byte, short, long, plain = match.groups()
        if plain is not None and plain in "\\'\"?" + "".join(_PLAIN):
            return _PLAIN.get(plain, plain).encode()
        code = int(octal, 8) if octal else int(byte or short or long or "ffffff", 16)
        if (octal or byte) and code < 256:
            return bytes([code])
        if (short or long) and code < 0x110000 and not 0xD800 <= code < 0xE000:
            return chr(code).encode()
        raise self.error(match.start(), f"`{match[0]}` is no escape")

    def error(self, offset: int, reason: str, mend: str | None = None) -> TextError:
        return TextError(reason, self.source, offset, mend)

    def stray(self, char: str) -> str:
        if char in "'\"":
            return "the string never ends"
        return "not a number" if char in ".0123456789" else super().stray(char)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", errors="backslashreplace")


def _number(text: str) -> int | float:
    """An integer where it is spelled as one of at most 64 bits, as in protobuf, else a float."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16) if len(text) <= 18 else float("inf")
    if not text.isdigit() or len(text) > 20:
        return float(text.rstrip("fF"))
    return int(text, 8) if text[0] == "0" and not set(text) & set("89") else int(text)

"""TOML and JSON files whose values know where they stand.

`tomllib` and `json` read the values and refuse what is malformed; `_Spots` then finds where a
value of such a valid text starts, so that errors can point at it.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from irprune.errors import IrpruneError, SpecError

MOST_BYTES = 2 << 20
"""The largest specification file that is read: thousands of configurations fit."""

Keys = tuple[str | int, ...]
"""Keys and indices from the root of a document to a value."""

_SPACE = r"(?:\s++|\#[^\n]*+)*+"
_STRINGS = r"""\"{3}(?:[^\\]|\\.)*?\"{3,5}|'{3}.*?'{3,5}|"(?:[^"\\]|\\.)*"|'[^']*'"""
_TOKENS = {
    "toml": re.compile(rf"{_SPACE}({_STRINGS}|[][{{}},=]|[^][\s{{}},=#\"']++|\Z)", re.DOTALL),
    "json": re.compile(rf"{_SPACE}({_STRINGS}|[][{{}},:]|[^][\s{{}},:\"']++|\Z)", re.DOTALL),
}
_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True)
class Text:
    """A text and where it came from."""

    text: str = field(repr=False)
    file: Path | str | None = None

    def error(self, offset: int, reason: str, mend: str | None = None) -> SpecError:
        """An error that points at an offset."""
        return SpecError(reason, text=self.text, offset=offset, file=self.file, mend=mend)

    def offset(self, line: int, column: int) -> int:
        """The offset of a line and a column, both from 1."""
        lines = self.text.split("\n")
        return min(sum(len(each) + 1 for each in lines[: line - 1]) + column - 1, len(self.text))


@dataclass(frozen=True)
class Document:
    """The table that a TOML or JSON text holds."""

    source: Text
    form: str
    """`toml` or `json`."""
    data: dict[str, Any]

    @cached_property
    def spots(self) -> dict[Keys, int]:
        """Where each value starts, as offsets into the text."""
        return _Spots(self.source.text, self.form).found

    def offset(self, *path: str | int) -> int:
        """Where the value at `path`, or else the nearest one around it, starts."""
        while path and path not in self.spots:
            path = path[:-1]
        return self.spots.get(path, 0)

    def error(self, *path: str | int, reason: str, mend: str | None = None) -> SpecError:
        """An error that points at the value at `path`."""
        return self.source.error(self.offset(*path), reason, mend)


def read_bytes(path: Path | str) -> bytes:
    """The content of a file of bounded size (IrpruneError)."""
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise IrpruneError(f"cannot read the file: {reason}", file=path) from error
    if len(data) > MOST_BYTES:
        reason = f"is larger than {MOST_BYTES >> 20} MiB, too large for a specification"
        raise IrpruneError(reason, file=path)
    return data


def decode(data: bytes, file: Path | str | None = None) -> Text:
    """The UTF-8 text of a file (IrpruneError)."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise IrpruneError(f"not UTF-8 text (byte {error.start})", file=file) from error
    return Text(text.replace("\r\n", "\n"), file)


def parse(source: Text, form: str) -> Document:
    """The document that a text of `form` (`toml` or `json`) spells (SpecError)."""
    try:
        data = tomllib.loads(source.text) if form == "toml" else json.loads(source.text)
    except json.JSONDecodeError as error:
        raise source.error(error.pos, f"not JSON: {error.msg}") from error
    except tomllib.TOMLDecodeError as error:
        place = _POSITION.search(str(error))
        given = place is not None and place[1] is not None
        offset = source.offset(int(place[1]), int(place[2])) if place and given else None
        reason = _POSITION.sub("", str(error))
        end = len(source.text) if offset is None else offset
        raise source.error(end, f"not TOML: {reason}") from error
    except (RecursionError, ValueError) as error:
        reason = "values nest too deeply" if isinstance(error, RecursionError) else str(error)
        raise source.error(0, f"not {form.upper()}: {reason}") from error
    if not isinstance(data, dict):
        raise source.error(0, "the file must hold a table of keys")
    return Document(source, form, data)


class _Spots:
    """The offsets of all values of a text that is known to be valid."""

    def __init__(self, text: str, form: str) -> None:
        self.text = text
        self.token = _TOKENS[form]
        self.found: dict[Keys, int] = {}
        self.tables: dict[Keys, int] = {}
        """How often each header `[[name]]` came."""
        self._next(0)
        if form == "json":
            self._value(())
        else:
            self._statements()

    def _next(self, offset: int) -> None:
        match = self.token.match(self.text, offset)
        if match is None:  # a spot that this scanner does not know: what follows has no place
            self.word, self.start, self.end = "", len(self.text), len(self.text)
        else:
            self.word, (self.start, self.end) = match[1], match.span(1)

    def _take(self, *words: str) -> bool:
        if self.word not in words or not self.word:
            return False
        self._next(self.end)
        return True

    def _statements(self) -> None:
        table: Keys = ()
        while self.word:
            if self.word == "[":
                table = self._header()
            else:
                key = self._key()
                self._take("=")
                self._value((*table, *key))

    def _header(self) -> Keys:
        start = self.start
        self._take("[")
        repeated = self._take("[")
        table: Keys = self._key()
        self._take("]")
        if repeated:
            self._take("]")
            count = self.tables.get(table, 0)
            self.tables[table] = count + 1
            table = (*table, count)
        self.found.setdefault(table, start)
        return table

    def _key(self) -> tuple[str, ...]:
        """A dotted key: words until `=` or `]`."""
        text = ""
        while self.word and self.word not in ("=", "]", ":"):
            text += self.word
            self._next(self.end)
        return tuple(part.strip("\"'") for part in text.split("."))

    def _value(self, path: Keys) -> None:
        self.found.setdefault(path, self.start)
        if self._take("["):
            index = 0
            while self.word and not self._take("]"):
                self._value((*path, index))
                self._take(",")
                index += 1
        elif self._take("{"):
            while self.word and not self._take("}"):
                key = self._key()
                self._take("=", ":")
                self._value((*path, *key))
                self._take(",")
        else:
            self._next(self.end)

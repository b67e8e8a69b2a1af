"""Messages of protobuf text format: ordered fields that know where they stand.

Nothing here knows which fields exist: whoever reads a `Message` asks for a field by name and
type, and `Message.unread` tells afterwards which fields nobody asked for.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from irprune.errors import CONTROL, SpecError

_D = TypeVar("_D")
_Int = int  # `Field` and `Message` have methods of these names
_Float = float
_Bool = bool
_Str = str

INFINITE = {"inf": "inf", "infinity": "inf", "nan": "nan"}
_BOOLS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_MAX_SHOWN = 120


class TextError(SpecError):
    """A text that does not parse, or a field that is not what it must be."""

    def __init__(self, reason: str, source: Source, offset: int, mend: str | None = None) -> None:
        super().__init__(
            _shown(reason), text=source.text, offset=offset, file=source.file, mend=mend
        )
        self.source = source


def _shown(reason: str) -> str:
    """A reason that fits a line, whatever it quotes."""
    if len(reason) > 3 * _MAX_SHOWN:
        reason = f"{reason[: 2 * _MAX_SHOWN]} ... {reason[-_MAX_SHOWN:]}"
    return CONTROL.sub("?", reason)


@dataclass(frozen=True)
class Source:
    """A text and where it came from."""

    text: str = field(repr=False)
    file: Path | str | None = None

    @cached_property
    def starts(self) -> list[int]:
        """The offset at which each line starts."""
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self.starts, offset)
        return line, offset - self.starts[line - 1] + 1


class Bareword(str):
    """An unquoted word: an enum name or a boolean; `-inf` keeps its sign."""

    __slots__ = ()


@dataclass(frozen=True)
class Field:
    """`name: value` at one spot of a source; `offset` is where the value starts."""

    name: str
    value: int | float | str | Message
    source: Source = field(repr=False, compare=False)
    offset: int = field(repr=False, compare=False)

    @property
    def line(self) -> _Int:
        return self.source.place(self.offset)[0]

    @property
    def column(self) -> _Int:
        return self.source.place(self.offset)[1]

    @property
    def place(self) -> _Str:
        """File, line and column, for warnings."""
        return f"{self.source.file or 'text'}:{self.line}:{self.column}"

    def error(self, reason: _Str, mend: _Str | None = None) -> TextError:
        """An error that points at this value."""
        return TextError(reason, self.source, self.offset, mend)

    def wrong(self, expected: _Str) -> TextError:
        """The error of a value of the wrong kind."""
        value = self.value
        if isinstance(value, Message):
            got = "a message"
        else:
            bare = isinstance(value, Bareword) or not isinstance(value, str)
            got = f"`{value}`" if bare else f'the string "{value}"'
        return self.error(f"`{self.name}` must be {expected}, got {got}")

    def int(self) -> _Int:
        if isinstance(self.value, int):
            return self.value
        raise self.wrong("an integer")

    def float(self) -> _Float:
        if isinstance(self.value, Bareword):
            sign, word = self.value.startswith("-"), self.value.removeprefix("-").lower()
            if word in INFINITE:
                return float(INFINITE[word]) * (-1 if sign else 1)
        elif isinstance(self.value, int | float):
            return float(self.value)
        raise self.wrong("a number")

    def bool(self) -> _Bool:
        if isinstance(self.value, Bareword) and self.value in _BOOLS:
            return _BOOLS[self.value]
        if isinstance(self.value, int) and self.value in (0, 1):
            return self.value == 1
        raise self.wrong("true or false")

    def str(self) -> _Str:
        if isinstance(self.value, str) and not isinstance(self.value, Bareword):
            return self.value
        raise self.wrong("a quoted string")

    def enum(self, names: Sequence[_Str]) -> _Str:
        """One of `names`, given by name or by its position among them."""
        if isinstance(self.value, int) and 0 <= self.value < len(names):
            return names[self.value]
        if isinstance(self.value, Bareword):
            return self._known(names)
        raise self.wrong(f"one of {', '.join(names)}, unquoted")

    def one_of(self, names: Sequence[_Str]) -> _Str:
        """A quoted string that is one of `names`."""
        self.str()
        return self._known(names)

    def _known(self, names: Sequence[_Str]) -> _Str:
        word = _Str(self.value)
        if word in names:
            return word
        close = [name for name in names if name.lower() == word.lower()]
        close = close or get_close_matches(word, names, 1)
        mend = f"did you mean {close[0]}?" if close else f"it is one of {', '.join(names)}"
        raise self.error(f"`{self.name}` cannot be {word}", mend)

    def message(self) -> Message:
        if isinstance(self.value, Message):
            return self.value
        raise self.wrong("a message in braces")


class Message:
    """An ordered multimap from field name to fields; it remembers which were asked for."""

    def __init__(self, fields: Sequence[Field], source: Source, offset: int) -> None:
        self.fields = tuple(fields)
        self.source = source
        self.offset = offset
        self._read: set[_Str] = set()
        self._named: dict[_Str, list[Field]] = {}
        for one in self.fields:
            self._named.setdefault(one.name, []).append(one)

    def __eq__(self, other: object) -> _Bool:
        return isinstance(other, Message) and self.fields == other.fields

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> _Str:
        return f"Message({', '.join(f'{f.name}={f.value!r}' for f in self.fields)})"

    def __contains__(self, name: _Str) -> _Bool:
        return name in self._named

    @property
    def line(self) -> _Int:
        return self.source.place(self.offset)[0]

    def error(self, reason: _Str, mend: _Str | None = None) -> TextError:
        """An error that points at the start of this message."""
        return TextError(reason, self.source, self.offset, mend)

    def all(self, name: _Str) -> list[Field]:
        """Every field of that name, in order."""
        self._read.add(name)
        return self._named.get(name, [])

    def one(self, name: _Str) -> Field | None:
        """The only field of that name, None where there is none (TextError if given twice)."""
        found = self.all(name)
        if len(found) > 1:
            raise found[1].error(f"`{name}` is given twice", f"first on line {found[0].line}")
        return found[0] if found else None

    def need(self, name: _Str) -> Field:
        """The only field of that name (TextError if there is none)."""
        found = self.one(name)
        if found is None:
            raise self.error(f"`{name}` is missing")
        return found

    def int(self, name: _Str, default: _D) -> _Int | _D:
        return default if (found := self.one(name)) is None else found.int()

    def float(self, name: _Str, default: _D) -> _Float | _D:
        return default if (found := self.one(name)) is None else found.float()

    def bool(self, name: _Str, default: _D) -> _Bool | _D:
        return default if (found := self.one(name)) is None else found.bool()

    def str(self, name: _Str, default: _D) -> _Str | _D:
        return default if (found := self.one(name)) is None else found.str()

    def enum(self, name: _Str, names: Sequence[_Str], default: _D) -> _Str | _D:
        return default if (found := self.one(name)) is None else found.enum(names)

    def message(self, name: _Str) -> Message:
        """The nested message of that name; an empty one where there is none."""
        found = self.one(name)
        return Message((), self.source, self.offset) if found is None else found.message()

    def ints(self, name: _Str) -> list[_Int]:
        return [found.int() for found in self.all(name)]

    def floats(self, name: _Str) -> list[_Float]:
        return [found.float() for found in self.all(name)]

    def strs(self, name: _Str) -> list[_Str]:
        return [found.str() for found in self.all(name)]

    def messages(self, name: _Str) -> list[Message]:
        return [found.message() for found in self.all(name)]

    def ignore(self, *names: _Str) -> None:
        """Count these fields as asked for, whatever stands in them."""
        for name in names:
            self._read.add(name)
            for found in self._named.get(name, []):
                if isinstance(found.value, Message):
                    found.value.ignore(*found.value._named)

    def unread(self, skip: Container[_Str] = ()) -> Iterator[Field]:
        """Iterate over the fields that nobody asked for, those of nested messages included.

        Fields named in `skip` are left out, with all that they hold.
        """
        for one in self.fields:
            if one.name in skip:
                continue
            if one.name not in self._read:
                yield one
            elif isinstance(one.value, Message):
                yield from one.value.unread()

"""Texts read token by token: what the recursive-descent parsers of small languages share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from irprune.errors import IrpruneError


@dataclass(frozen=True)
class Token:
    """A piece of a text; `kind` is the name of the group that matched it, `end` at the end."""

    kind: str
    text: str
    start: int
    end: int


class Reader:
    """A text, read one token ahead; a language adds its grammar and its errors."""

    space: ClassVar[re.Pattern[str]]
    """What may stand between tokens; it matches nothing, too."""
    pattern: ClassVar[re.Pattern[str]]
    """One named group per kind of token; `punct` is what `take` takes, `end` the end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.token = self._read(0)

    def error(self, offset: int, reason: str, mend: str | None = None) -> IrpruneError:
        """An error that points at an offset."""
        raise NotImplementedError

    def stray(self, char: str) -> str:
        """Why no token starts with this character."""
        return f"unexpected `{char}`"

    def next(self) -> Token:
        """The token, which is read now."""
        token = self.token
        self.token = self._read(token.end)
        return token

    def take(self, punct: str) -> bool:
        """Whether this punctuation comes; if so it is read now."""
        if self.token.kind != "punct" or self.token.text != punct:
            return False
        self.next()
        return True

    def expect(self, punct: str) -> None:
        """Take this punctuation."""
        if not self.take(punct):
            self.fail(f"expected `{punct}`")

    def fail(self, reason: str, mend: str | None = None) -> NoReturn:
        """Raise an error that points at the token."""
        raise self.error(self.token.start, reason, mend)

    def _read(self, offset: int) -> Token:
        space = self.space.match(self.text, offset)
        start = space.end() if space else offset
        match = self.pattern.match(self.text, start)
        if match is None:
            raise self.error(start, self.stray(self.text[start]))
        return Token(match.lastgroup or "end", match[0], start, match.end())

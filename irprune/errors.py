"""The errors that users see: one message with the place, the reason and the mend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAX_SHOWN = 120
_MOST_NAMED = 4
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that must not reach a terminal, or cannot."""


class IrpruneError(Exception):
    """Bad usage or bad input.

    `file` and `node` say where (give a node as `name (OpType)`), `reason` what is wrong and
    `mend` what to do about it; the message joins the parts that exist.
    """

    exit_code = 2

    def __init__(
        self,
        reason: str,
        *,
        file: str | Path | None = None,
        node: str | None = None,
        mend: str | None = None,
    ) -> None:
        self.reason = reason
        self.file = file
        self.node = node
        self.mend = mend
        super().__init__(reason)

    def __str__(self) -> str:
        place = [str(part) for part in (self.file, self.node) if part is not None]
        message = ": ".join([*place, self.reason])
        return message if self.mend is None else f"{message}; {self.mend}"


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def naming(file: str | Path | None) -> Iterator[None]:
    """Let errors that name no file name this one."""
    try:
        yield
    except IrpruneError as error:
        error.file = error.file or file
        raise


class CheckFailed(IrpruneError):
    """A check did not pass: a proof failed or was inconclusive, or a target was not met."""

    exit_code = 1
    report: dict[str, Any] | None = None
    """What the run found out before it failed."""


class PassFailed(CheckFailed):
    """A pass raised an unexpected error or left a graph that is structurally wrong."""


class SpecError(IrpruneError):
    """A text, such as a specification file, that does not parse or makes no sense.

    `text` is the source, `offset` the index of the offending character. The message starts with
    `file:line:column` and ends with the line and a caret below the spot.
    """

    def __init__(
        self,
        reason: str,
        *,
        text: str,
        offset: int,
        file: str | Path | None = None,
        mend: str | None = None,
    ) -> None:
        self.text = text
        self.offset = offset
        self.line = text.count("\n", 0, offset) + 1
        self.column = offset - text.rfind("\n", 0, offset)
        super().__init__(reason, file=f"{file or 'text'}:{self.line}:{self.column}", mend=mend)

    def __str__(self) -> str:
        return f"{super().__str__()}\n{caret(self.text, self.offset)}"


class PipelineError(SpecError):
    """A pipeline text that does not parse or does not resolve.

    The message has a place only where the text stands in a file (or a preset).
    """

    def __init__(
        self,
        reason: str,
        *,
        text: str,
        offset: int,
        file: str | Path | None = None,
        mend: str | None = None,
    ) -> None:
        super().__init__(reason, text=text, offset=offset, file=file, mend=mend)
        if file is None:
            self.file = None


def caret(text: str, offset: int) -> str:
    """The line of `text` around `offset`, indented, with a caret below the spot."""
    start = text.rfind("\n", 0, offset) + 1
    line = text[start:].split("\n", 1)[0].rstrip("\r")
    first = max(0, min(offset - start - _MAX_SHOWN // 2, len(line) - _MAX_SHOWN))
    shown = CONTROL.sub("?", line[first : first + _MAX_SHOWN])
    pad = "".join(c if c == "\t" else " " for c in line[first : offset - start])
    return f"  {shown}\n  {pad}^"

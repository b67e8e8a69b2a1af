"""The errors that users see: one message with the place, the reason and the mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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


class CheckFailed(IrpruneError):
    """A check did not pass: a proof failed or was inconclusive, or a target was not met."""

    exit_code = 1
    report: dict[str, Any] | None = None
    """What the run found out before it failed."""


class PassFailed(CheckFailed):
    """A pass raised an unexpected error or left a graph that is structurally wrong."""


class PipelineError(IrpruneError):
    """A pipeline text that does not parse or does not resolve.

    `text` is the source, `offset` the index of the offending character; the message shows the
    line with a caret below it.
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
        super().__init__(reason, file=file, mend=mend)
        self.text = text
        self.offset = offset

    def __str__(self) -> str:
        start = self.text.rfind("\n", 0, self.offset) + 1
        line = self.text[start:].split("\n", 1)[0]
        pad = "".join(c if c == "\t" else " " for c in line[: self.offset - start])
        return f"{super().__str__()}\n  {line}\n  {pad}^"

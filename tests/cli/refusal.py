"""What a refused command must look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

Cli = Callable[..., Result]


def refused(cli: Cli, *args: object, status: int = 2) -> str:
    """The single error message of a refused command, which must have left no new file."""
    before = sorted(Path().rglob("*"))
    done = cli(*args)
    assert done.exit_code == status, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert sorted(Path().rglob("*")) == before
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return done.stderr[done.stderr.index("error: ") :]


def refused_at(cli: Cli, place: tuple[Path, int, int], *args: object) -> str:
    """The reason of a refusal that points at a file's line and column, with a caret below it."""
    path, line, column = place
    message, shown, caret, *more = refused(cli, *args).splitlines()
    start = f"error: {path}:{line}:{column}: "
    assert message.startswith(start), message
    assert shown == "  " + path.read_text().split("\n")[line - 1]
    assert caret == " " * (column + 1) + "^"
    assert not more
    return message.removeprefix(start)

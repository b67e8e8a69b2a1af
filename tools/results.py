"""Rows that a long measurement keeps in a JSON file, and the page that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irprune.atomic import make_folder, write_text
from irprune.errors import IrpruneError
from irprune.host import cpu

Row = dict[str, Any]
Rows = dict[str, Row]
"""Rows by their key: what was measured, and the CPU that measured it, with bars between."""

REMARKS = "\n## Remarks\n"
"""From here on a page is written by hand."""


def key_of(*parts: object) -> str:
    """Return the key of a row that this machine measures."""
    return "|".join([*map(str, parts), cpu()])


def by_cpu(rows: Rows) -> dict[str, list[tuple[list[str], Row]]]:
    """Return the rows of each CPU, with the other parts of their keys."""
    found: dict[str, list[tuple[list[str], Row]]] = {}
    for key, row in rows.items():
        *parts, where = key.split("|")
        found.setdefault(where, []).append((parts, row))
    return found


def kept(path: Path) -> Rows:
    """Return the rows of earlier runs: none where there is no file."""
    rows: Rows = json.loads(path.read_text()) if path.exists() else {}
    return rows


def keep(path: Path, rows: Rows) -> None:
    """Write all rows."""
    write_text(path, json.dumps(rows, indent=1) + "\n")


def claim(path: Path, options: Row) -> None:
    """Let the folder of a file hold what is measured by some options, which it tells from then on.

    Folders of before told less: what they leave out is as now, and was in 32-true.

    Raises:
        IrpruneError: the folder holds what was measured by others.
    """
    folder = path.parent
    used = folder.is_dir() and any(folder.iterdir())
    told = json.loads(path.read_text()) if path.is_file() else {}
    if used and options | {"precision": "32-true"} | told != options:
        mend = "choose another folder with --runs, or the options of before"
        raise IrpruneError("holds results of other options", file=path, mend=mend)
    make_folder(folder)
    write_text(path, json.dumps(options, indent=1) + "\n")


def publish(text: str, out: Path | None) -> None:
    """Print a page, and write it where a file is named, above the remarks that stand there."""
    print(text)
    if out:
        before = out.read_text() if out.exists() else ""
        write_text(out, text + "".join(before.partition(REMARKS)[1:]))

"""Rows that a long measurement keeps in a JSON file, and the page that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irprune.atomic import write_text
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


def publish(text: str, out: Path | None) -> None:
    """Print a page, and write it where a file is named, above the remarks that stand there."""
    print(text)
    if out:
        before = out.read_text() if out.exists() else ""
        write_text(out, text + "".join(before.partition(REMARKS)[1:]))

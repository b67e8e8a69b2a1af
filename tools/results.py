"""Rows that a long measurement keeps in a JSON file, and the page that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irprune.atomic import write_text

Row = dict[str, Any]


def kept(path: Path) -> dict[str, Row]:
    """Return the rows of earlier runs: none where there is no file."""
    rows: dict[str, Row] = json.loads(path.read_text()) if path.exists() else {}
    return rows


def keep(path: Path, rows: dict[str, Row]) -> None:
    """Write all rows."""
    write_text(path, json.dumps(rows, indent=1) + "\n")


def publish(text: str, out: Path | None) -> None:
    """Print a page, and write it where a file is named."""
    print(text)
    if out:
        write_text(out, text)

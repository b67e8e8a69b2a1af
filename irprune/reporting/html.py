"""One self-contained HTML page on a run: no network, no inline handlers, every string escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from irprune.errors import IrpruneError
from irprune.reporting import charts
from irprune.reporting.reading import Json, read
from irprune.units import duration, quantity

LIBRARIES = {"jinja2": "Jinja2", "pygal": "pygal"}
LETTERS = 64
"""Longest names in drawings; longer ones lose their middle there, not in tables."""


def require() -> None:
    """Raise IrpruneError where a library that pages are made with is missing."""
    missing = [name for module, name in LIBRARIES.items() if find_spec(module) is None]
    if missing:
        raise IrpruneError(
            f"HTML reports need {' and '.join(missing)}, which is not installed",
            mend='install "irprune[report]", or write JSON: --report R.json',
        )


def render(data: Json, file: Path | None = None) -> str:
    """Return the page on a report; IrpruneError where it is malformed or a library is missing."""
    require()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    page = read(data, file)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shown = {
        "quantity": quantity,
        "duration": duration,
        "percent": lambda part: f"{100 * part:.1f} %",
        "error": lambda error: "0" if error == 0 else f"{error:.1e}",
        "middle": _middle,
    }
    environment.filters |= shown
    environment.globals |= shown
    style, script = _asset("page.css"), _asset("page.js")
    facts: Mapping[str, Any] = {
        "page": page,
        "style": Markup(style),
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "marks": {g.index: charts.stair_marks(g, page.align) for g in page.groups},
        "widest": max((group.before for group in page.groups), default=0),
        "map": charts.group_map(page.groups, page.layers, LETTERS) if page.layers else None,
        "scales": [charts.error_scale(proof) for proof in page.proofs],
        "trials": Markup((page.latency and charts.trials_svg(page.latency)) or ""),
        "path": Markup((page.selection and charts.path_svg(page.selection)) or ""),
    }
    return environment.from_string(_asset("page.html.j2")).render(facts)


def _asset(name: str) -> str:
    return files("irprune.reporting").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """Return the source of a content security policy that admits exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _middle(text: str, most: int = LETTERS) -> str:
    """Return the text, or its ends where it is too long."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[:half]}…{text[-half:]}"

"""Numbers and tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irprune.units import quantity, share


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Rows of cells as aligned columns; the last column is ragged."""
    count = max((len(row) for row in rows), default=0)
    widths = [max((len(row[k]) for row in rows if k < len(row)), default=0) for k in range(count)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )
    return "\n".join(indent + line for line in lines)


def dims(shape: Sequence[int | str | None] | None) -> str:
    """A shape as `1x3x224x224`; `?` where a size is unknown."""
    if shape is None:
        return "of unknown rank"
    return "x".join("?" if dim is None else str(dim) for dim in shape) or "scalar"


def summary(report: dict[str, Any]) -> str:
    """What a run did: costs before and after, and the verdicts."""
    before, after = report["before"], report["after"]
    rows = [["pipeline", report["pipeline"]], ["", "before", "after", "kept"]]
    for key, name, unit in (
        ("params", "parameters", ""),
        ("macs", "MACs", ""),
        ("weight_bytes", "weights", "B"),
        ("activation_bytes", "activations", "B"),
    ):
        old, new = before[key], after[key]
        rows.append([name, quantity(old, unit), quantity(new, unit), share(new, old)])
    proofs = report.get("proof", [])
    lines = [f"pipeline  {rows[0][1]}", table(rows[1:], indent="")]
    if report["inexact"]:
        lines.append(f"inexact: {counts(report['inexact'])} see the kept channels alone")
    lines += map(proof_line, proofs)
    return "\n".join([*lines, *([] if proofs else ["not proved"])])


def proof_line(proof: dict[str, Any]) -> str:
    """One line on a proof: verdict, claim, and what it stands on."""
    if proof["verdict"] != "proved":
        return f"{proof['verdict']}: {proof['claim']}: {proof['reason']}"
    facts = f"{proof['compared']} activations, {proof['seeds']} sample inputs"
    if proof["inexact"]:
        facts += f", gathered reference at {counts(proof['inexact'])}"
    return f"proved: {proof['claim']} ({facts}, largest error {proof['max_error']:.1e})"


def counts(numbers: dict[str, int]) -> str:
    """Counted names: `2 LRN, 12 Softmax`."""
    return ", ".join(f"{count} {name}" for name, count in numbers.items())

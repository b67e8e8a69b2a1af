"""Export, prune, prove and delete one network of the zoo after another, and write the table.

    python tools/zoo_sweep.py --json docs/results/zoo.json --out docs/results/zoo.md
    python tools/zoo_sweep.py --models 'timm-*' --variants dynamo-static --json zoo.json

What the JSON file holds already is left out, so a sweep can be stopped and run again. Variant by
variant, every network is exported by a process of its own and measured by another, so that nothing
but one network is ever on disk or in memory, and one that takes the process with it is a row too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import zoo
from zoo import Row, load_rows, save_rows, show, summary
from zoo_export import DEFAULT_VARIANTS, VARIANTS, matching
from zoo_models import Network, networks

from irprune.atomic import write_text

TOOLS = Path(__file__).parent
REASONS = 4
"""Reasons that the table lists for a network, the most frequent first."""


def sweep(network: Network, variant: str, pipeline: str, minutes: float) -> Row:
    """Export one file into a scratch folder and measure it."""
    row = Row(network.name, variant, network.source)
    with tempfile.TemporaryDirectory(prefix="irprune-zoo-") as scratch:
        out = Path(scratch)
        file = out / f"{network.name}.{variant}.onnx"
        names = ["--models", network.name, "--variants", variant]
        problem = _run(minutes, "zoo_export.py", "--out", out, *names)
        if not file.exists():
            report = out / "export.json"
            records = json.loads(report.read_text()) if report.exists() else {}
            row.verdict = "not exported"
            row.reason = records[file.name]["reason"] if file.name in records else problem
            return row
        results = out / "rows.json"
        options = ["--as-is", "--pipeline", pipeline, "--json", results]
        problem = _run(minutes, "zoo.py", file, *options)
        rows = load_rows(results, pipeline)
        if not rows:
            row.verdict, row.reason = "crashed", problem
            return row
    rows[0].source = network.source
    return rows[0]


def _run(minutes: float, tool: str, *arguments: object) -> str:
    """Run one of the tools on one thread; return what went wrong, "" if nothing did."""
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    try:
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=60 * minutes,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"took longer than {minutes:g} minutes"
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode == -signal.SIGKILL:
        return f"{tool} was killed, as happens where memory runs out"
    return f"exit status {done.returncode}: {last}" if done.returncode else ""


def markdown(rows: Sequence[Row], command: str, pipeline: str) -> str:
    """Return the document: a summary, a table per source, what is not proved, what is pinned."""
    rows = sorted(rows, key=lambda row: (_kind(row), row.source, row.model))
    names = dict.fromkeys(row.model for row in rows)
    lines = [
        f"# {summary(rows)}",
        "",
        f"`{command}`:",
        f"`{pipeline}`",
        f"and its proof, for {len(names)} networks of torchvision and timm, exported in up to",
        "four ways. A column of an export holds the largest relative error of the proof, or what",
        "happened instead (below). Free: the share of the channels that weights are multiplied",
        "along (those of a graph input aside) that is not pinned, the least of all exports. Nodes,",
        "parameters and MACs kept are those of the first export.",
        "",
        "| source | files | proved | free | not exported |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in dict.fromkeys(map(_kind, rows)):
        part = [row for row in rows if _kind(row) == kind]
        channels, free = sum(r.channels for r in part), sum(r.free for r in part)
        absent = sum(row.verdict == "not exported" for row in part)
        proved = sum(row.proved for row in part)
        share = f"{free / max(channels, 1):.2%}"
        lines.append(f"| {kind} | {len(part) - absent} | {proved} | {share} | {absent} |")
    for kind in dict.fromkeys(map(_kind, rows)):
        lines += ["", f"## {kind}", ""]
        lines += _table([row for row in rows if _kind(row) == kind])
    lines += _failures([row for row in rows if not row.proved])
    lines += _pinned([row for row in rows if row.pinned])
    return "\n".join(lines) + "\n"


def _kind(row: Row) -> str:
    """Return the section of a row: torchvision's kinds, and timm."""
    return "timm" if row.source.startswith("timm") else row.source


def _table(rows: Sequence[Row]) -> list[str]:
    heads = ["model", "module", "nodes", "free", "params", "MACs", *DEFAULT_VARIANTS]
    if not rows[0].source.startswith("timm"):
        heads.remove("module")
    lines = [f"| {' | '.join(heads)} |"]
    lines.append("| --- |" + " ---: |" * (len(heads) - 1))
    for name in dict.fromkeys(row.model for row in rows):
        by_variant = {row.variant: row for row in rows if row.model == name}
        some = list(by_variant.values())
        analysed = [row for row in some if row.channels] or some
        measured = [row for row in some if row.params is not None] or some
        cells = {
            "model": name.removeprefix("timm-"),
            "module": some[0].source.removeprefix("timm "),
            "nodes": str(analysed[0].nodes),
            "free": f"{100 * min(row.share for row in analysed):.4g} %",
            "params": _share(measured[0].params),
            "MACs": _share(measured[0].macs),
        }
        cells |= {variant: _verdict(by_variant.get(variant)) for variant in DEFAULT_VARIANTS}
        lines.append(f"| {' | '.join(cells[head] for head in heads)} |")
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _verdict(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{row.error:.1e}" if row.proved else row.verdict


def _failures(rows: Sequence[Row]) -> list[str]:
    """Return the section of what is not proved, networks with the same reason together."""
    lines = ["", "## Not proved", ""] if rows else []
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row.verdict, row.reason), []).append(f"{row.model} ({row.variant})")
    for (verdict, reason), names in found.items():
        lines.append(f"- {', '.join(names)}: {verdict}: {reason}")
    return lines


def _pinned(rows: Sequence[Row]) -> list[str]:
    """Return the section of what is pinned and why, one variant of each network."""
    lines = ["", "## What is pinned", ""] if rows else []
    if rows:
        lines += ["Channels by reason and op: of all files, then of each network's worst export."]
        total: Counter[str] = Counter()
        for row in rows:
            total.update(row.pinned)
        lines += ["", "| channels | files | reason |", "| ---: | ---: | --- |"]
        for reason, count in total.most_common():
            files = sum(reason in row.pinned for row in rows)
            lines.append(f"| {count} | {files} | {reason} |")
        lines += ["", "| model | reasons |", "| --- | --- |"]
    worst = {row.model: row for row in sorted(rows, key=lambda r: -r.share)}
    for name, row in sorted(worst.items()):
        reasons = Counter(row.pinned).most_common(REASONS)
        lines.append(f"| {name} | {'; '.join(f'{n}: {text}' for text, n in reasons)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument(
        "--variants", nargs="+", default=list(DEFAULT_VARIANTS), metavar="PATTERN",
        help=f"of {', '.join(VARIANTS)}",
    )  # fmt: skip
    parser.add_argument("--pipeline", default=zoo.PIPELINE)
    parser.add_argument("--json", type=Path, required=True, help="the rows, read and extended")
    parser.add_argument("--again", nargs="*", default=[], help="drop these verdicts and redo them")
    parser.add_argument("--minutes", type=float, default=30, help="that one step may take")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    rows = load_rows(options.json, options.pipeline)
    zoo_networks = networks()
    chosen = matching(zoo_networks, options.models)
    print(zoo.HEADING)
    for variant in matching(VARIANTS, options.variants):
        for name in chosen:
            old = [row for row in rows if (row.model, row.variant) == (name, variant)]
            if any(row.verdict not in options.again for row in old):
                continue
            row = sweep(zoo_networks[name], variant, options.pipeline, options.minutes)
            rows = [other for other in rows if other not in old] + [row]
            save_rows(options.json, options.pipeline, rows)
            print(show(row), flush=True)
    print(summary(rows))
    if options.out:
        command = f"python tools/zoo_sweep.py --json {options.json} --out {options.out}"
        write_text(options.out, markdown(rows, command, options.pipeline))


if __name__ == "__main__":
    main()

"""Prune, compact and prove a set of models; one row each, and a JSON file.

    python tools/zoo.py --shared                     # the real models of the shared folder
    python tools/zoo.py --zoo ~/.cache/irprune/zoo   # what tools/zoo_export.py wrote

A row: nodes, analysis seconds, share of contraction channels that are not pinned (channels of a
graph input aside), parameters and MACs kept, largest proof error, verdict. Constant weights get
random numbers first, and the row says so.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from randomize import randomize

from irprune import api
from irprune.channels import analyse, pin_reasons
from irprune.errors import CheckFailed, IrpruneError
from irprune.passbase import Context
from irprune.passes.normalize import Normalize

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).parents[2] / "shared"))


@dataclass
class Row:
    """What one model gave."""

    model: str
    nodes: int = 0
    analysis_s: float = 0.0
    channels: int = 0
    """Contraction channels, those of a graph input aside."""
    free: int = 0
    """Those of them that are not pinned."""
    params: float | None = None
    macs: float | None = None
    error: float | None = None
    verdict: str = ""
    reason: str = ""
    seconds: float = 0.0
    randomised: int = 0
    """Constant weights that got random numbers first."""
    pinned: dict[str, int] = field(default_factory=dict)


def measure(path: Path, pipeline: str) -> Row:
    """Analyse one model, run the pipeline on it and prove the result."""
    row = Row(path.stem)
    started = time.perf_counter()
    try:
        model = api.load(path)
        row.randomised = randomize(model)
        _analyse(model, row)
        report = api.run(pipeline, model).report
        row.verdict = "proved"
        _fill(row, report)
    except CheckFailed as error:
        row.verdict, row.reason = "not proved", str(error)
    except IrpruneError as error:
        row.verdict, row.reason = "refused", str(error)
    row.seconds = time.perf_counter() - started
    return row


def _analyse(model: api.Model, row: Row) -> None:
    work = model.clone()
    Normalize().run(work, Context())
    started = time.perf_counter()
    channels = analyse(work.ir.graph)
    row.analysis_s = time.perf_counter() - started
    row.nodes = len(work.ir.graph)
    sites = channels.contractions
    for site in sites:
        inner = ~channels.from_input(site)
        row.channels += int(inner.sum())
        row.free += int((inner & (site.classes != 0)).sum())
    row.pinned = pin_reasons(channels, sites)


def _fill(row: Row, report: dict) -> None:
    before, after = report["before"], report["after"]
    row.params = after["params"] / before["params"] if before["params"] else None
    row.macs = after["macs"] / before["macs"] if before["macs"] else None
    row.error = max(link["max_error"] for link in report["proof"])


def show(row: Row) -> str:
    """Return a row of the table."""

    def share(value: float | None) -> str:
        return "     -" if value is None else f"{value:6.3f}"

    free = row.free / row.channels if row.channels else 1.0
    error = "       -" if row.error is None else f"{row.error:8.1e}"
    return (
        f"{row.model:<48}{row.nodes:>6}{row.analysis_s:>8.3f}{free:>8.2%}"
        f" {share(row.params)} {share(row.macs)} {error}  {row.verdict}"
        f"{_declared(row)} {row.reason[:160]}"
    )


def _declared(row: Row) -> str:
    return f" ({row.randomised} constant weights randomised)" if row.randomised else ""


def summary(rows: list[Row]) -> str:
    """Return the line below the table."""
    proved = sum(row.verdict == "proved" for row in rows)
    free, total = sum(r.free for r in rows), sum(r.channels for r in rows)
    return f"proved {proved} of {len(rows)}; {free / max(total, 1):.2%} of {total} channels free"


def markdown(rows: list[Row], command: str, pipeline: str) -> str:
    """Return the rows as a markdown document."""
    lines = [f"# {summary(rows)}", "", f"`{command}`: `{pipeline}` and its proof.", ""]
    lines.append("| model | nodes | analysis, s | free | params | MACs | error | verdict |")
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in sorted(rows, key=lambda row: row.model.lower()):
        free = f"{row.free / row.channels:.1%}" if row.channels else "-"
        kept = ["-" if share is None else f"{share:.3f}" for share in (row.params, row.macs)]
        error = "-" if row.error is None else f"{row.error:.1e}"
        reason = re.sub(r"^.*?\.onnx: ", "", row.reason)
        verdict = f"{row.verdict}{_declared(row)}" + (f": {reason}" if reason else "")
        cells = [row.model, str(row.nodes), f"{row.analysis_s:.3f}", free, *kept, error, verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--shared", action="store_true", help="the shared real models")
    parser.add_argument("--zoo", type=Path, help="a folder of .onnx files")
    parser.add_argument("--match", default="*", help="only file names like this")
    parser.add_argument("--ratio", type=float, default=0.4)
    parser.add_argument("--json", type=Path, help="write the rows here, after each model")
    parser.add_argument("--resume", action="store_true", help="skip what the JSON file holds")
    parser.add_argument("--out", type=Path, help="write the rows as a markdown table")
    parser.add_argument("--reasons", action="store_true", help="list what pins channels, and why")
    options = parser.parse_args()
    paths = list(options.models)
    if options.shared:
        paths += sorted((SHARED / "models" / "onnx").glob("*.onnx"))
    if options.zoo:
        paths += sorted(options.zoo.glob("*.onnx"))
    paths = [path for path in paths if fnmatch.fnmatch(path.name, options.match)]
    rows: list[Row] = []
    if options.resume and options.json and options.json.exists():
        rows = [Row(**row) for row in json.loads(options.json.read_text())["rows"]]
    known = {row.model for row in rows}
    pipeline = f"normalize, prune{{ratio={options.ratio} scope=local}}, compact"
    print(f"{'model':<48}{'nodes':>6}{'seconds':>8}{'free':>8} params   macs    error  verdict")
    for path in paths:
        if path.stem in known:
            continue
        row = measure(path, pipeline)
        rows.append(row)
        print(show(row), flush=True)
        if options.reasons:
            for reason, count in sorted(row.pinned.items(), key=lambda item: -item[1]):
                print(f"    {count:>6} positions: {reason}")
        if options.json:
            text = json.dumps({"pipeline": pipeline, "rows": [asdict(r) for r in rows]}, indent=1)
            options.json.write_text(text + "\n")
    print(summary(rows))
    if options.out:
        source = "--shared" if options.shared else "--zoo DIR"
        options.out.write_text(markdown(rows, f"python tools/zoo.py {source}", pipeline))


if __name__ == "__main__":
    main()

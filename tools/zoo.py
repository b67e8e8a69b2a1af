"""Prune, compact and prove a set of models; one row each, in a JSON file and a markdown table.

    python tools/zoo.py --shared --out table.md      # the real models of the shared folder
    python tools/zoo.py --zoo ~/.cache/irprune/zoo   # what tools/zoo_export.py wrote

A row: nodes, analysis seconds, share of the channels that weights are multiplied along that are not
pinned (channels of a graph input aside) and why the others are, parameters and MACs kept, largest
proof error, verdict. Constant weights get random numbers first, unless ``--as-is``, and the row
says so. ``tools/zoo_sweep.py`` does the same for networks that it exports and deletes again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from randomize import randomize

from irprune import api
from irprune.atomic import write_text
from irprune.channels import analyse, pin_reasons
from irprune.errors import CheckFailed, IrpruneError
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.passes.prune import Prune

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).parents[2] / "shared"))
PIPELINE = "normalize, prune{ratio=0.4 scope=local}, compact"


@dataclass
class Row:
    """What one model gave."""

    model: str
    variant: str = ""
    """How it was exported, of ``zoo_export.VARIANTS``; "" for a file that came as it is."""
    source: str = ""
    nodes: int = 0
    analysis_s: float = 0.0
    channels: int = 0
    """Channels that weights are multiplied along, those of a graph input aside."""
    free: int = 0
    """Those of them that are not pinned."""
    params: float | None = None
    macs: float | None = None
    error: float | None = None
    verdict: str = ""
    """proved, not proved, refused (by a message), crashed, or not exported."""
    reason: str = ""
    seconds: float = 0.0
    randomised: int = 0
    """Constant weights that got random numbers first."""
    pinned: dict[str, int] = field(default_factory=dict)
    """Such channels that are pinned, by reason and op type."""

    @property
    def share(self) -> float:
        """Share of the channels that are free."""
        return self.free / self.channels if self.channels else 1.0

    @property
    def proved(self) -> bool:
        return self.verdict == "proved"


def name_and_variant(path: Path) -> tuple[str, str]:
    """Split a file name ``MODEL.VARIANT.onnx``; other names have no variant."""
    found = re.fullmatch(r"(.+)\.((?:dynamo|torchscript)-[a-z-]+)", path.stem)
    return (found[1], found[2]) if found else (path.stem, "")


def measure(path: Path, pipeline: str = PIPELINE, *, as_is: bool = False) -> Row:
    """Analyse one model, run the pipeline on it and prove the result."""
    row = Row(*name_and_variant(path))
    started = time.perf_counter()
    try:
        model = api.load(path)
        row.randomised = 0 if as_is else randomize(model)
        _analyse(model, row, pipeline)
        report = api.run(pipeline, model).report
        row.verdict = "proved"
        _fill(row, report)
    except CheckFailed as error:
        row.verdict, row.reason = "not proved", str(error)
    except IrpruneError as error:
        row.verdict, row.reason = "refused", str(error)
    except Exception as error:  # a fault of irprune's: the sweep goes on, the table shows it
        where = traceback.extract_tb(error.__traceback__)[-1]
        row.verdict = "crashed"
        row.reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    row.reason = re.sub(r"^.*?\.onnx: ", "", row.reason)
    row.seconds = time.perf_counter() - started
    return row


def _analyse(model: api.Model, row: Row, pipeline: str) -> None:
    (prune,) = (pass_ for pass_ in api.resolve_pipeline(pipeline) if isinstance(pass_, Prune))
    work = model.clone()
    Normalize().run(work, Context())
    started = time.perf_counter()
    channels = analyse(work.ir.graph, prune.heads, prune.allow, prune.tie)
    row.analysis_s = time.perf_counter() - started
    row.nodes = len(work.ir.graph)
    weighted = {site.node for site in channels.consumers}
    sites = [site for site in channels.contractions if site.node in weighted]
    for site in sites:
        inner = ~channels.from_input(site)
        row.channels += int(inner.sum())
        row.free += int((inner & (site.classes != 0)).sum())
    for reason, count in pin_reasons(channels, sites).items():
        if not reason.startswith("is part of a graph input"):
            kind = re.sub(r" at .* \((\w+)\)$", r" (\1)", reason)
            kind = re.sub(r" at output .*", "", kind)
            row.pinned[kind] = row.pinned.get(kind, 0) + count


def _fill(row: Row, report: dict) -> None:
    before, after = report["before"], report["after"]
    row.params = after["params"] / before["params"] if before["params"] else None
    row.macs = after["macs"] / before["macs"] if before["macs"] else None
    row.error = max(link["max_error"] for link in report["proof"])


HEADING = (
    f"{'model':<56}{'nodes':>6}{'seconds':>8}{'free':>8} params   macs    error     all  verdict"
)


def show(row: Row) -> str:
    """Return a row of the table for the terminal; `all` is the seconds that everything took."""

    def share(value: float | None) -> str:
        return "     -" if value is None else f"{value:6.3f}"

    error = "       -" if row.error is None else f"{row.error:8.1e}"
    name = f"{row.model}.{row.variant}" if row.variant else row.model
    return (
        f"{name:<56}{row.nodes:>6}{row.analysis_s:>8.3f}{row.share:>8.2%}"
        f" {share(row.params)} {share(row.macs)} {error}{row.seconds:>8.1f}  {row.verdict}"
        f"{declared(row)} {row.reason[:160]}"
    )


def declared(row: Row) -> str:
    """Return the words about constant weights behind a verdict."""
    return f" ({row.randomised} constant weights randomised)" if row.randomised else ""


def summary(rows: Sequence[Row]) -> str:
    """Return the line over the table."""
    proved = sum(row.proved for row in rows)
    free, total = sum(r.free for r in rows), sum(r.channels for r in rows)
    return f"proved {proved} of {len(rows)}; {free / max(total, 1):.2%} of {total} channels free"


def markdown(rows: Sequence[Row], command: str, pipeline: str) -> str:
    """Return the rows as a markdown document."""
    lines = [f"# {summary(rows)}", "", f"`{command}`: `{pipeline}` and its proof.", ""]
    lines.append("| model | nodes | analysis, s | free | params | MACs | error | verdict |")
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in sorted(rows, key=lambda row: row.model.lower()):
        free = f"{row.share:.1%}" if row.channels else "-"
        kept = ["-" if share is None else f"{share:.3f}" for share in (row.params, row.macs)]
        error = "-" if row.error is None else f"{row.error:.1e}"
        verdict = f"{row.verdict}{declared(row)}" + (f": {row.reason}" if row.reason else "")
        cells = [row.model, str(row.nodes), f"{row.analysis_s:.3f}", free, *kept, error, verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def load_rows(path: Path, pipeline: str) -> list[Row]:
    """Return the rows of a JSON file, none if there is no file; all are of one pipeline."""
    if not path.exists():
        return []
    data = json.loads(path.read_text())
    if data["pipeline"] != pipeline:
        raise SystemExit(f"{path} holds rows of another pipeline: {data['pipeline']}")
    return [Row(**row) for row in data["rows"]]


def save_rows(path: Path, pipeline: str, rows: Sequence[Row]) -> None:
    """Write the rows, a line each."""
    lines = ",\n".join(json.dumps(_rounded(asdict(row))) for row in rows)
    write_text(path, f'{{"pipeline": {json.dumps(pipeline)}, "rows": [\n{lines}\n]}}\n')


def _rounded(data: dict) -> dict:
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in data.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--shared", action="store_true", help="the shared real models")
    parser.add_argument("--zoo", type=Path, help="a folder of .onnx files")
    parser.add_argument("--match", default="*", help="only file names like this")
    parser.add_argument("--pipeline", default=PIPELINE)
    parser.add_argument("--as-is", action="store_true", help="leave constant weights constant")
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
    resume = options.resume and options.json
    rows = load_rows(options.json, options.pipeline) if resume else []
    known = {(row.model, row.variant) for row in rows}
    print(HEADING)
    for path in paths:
        if name_and_variant(path) in known:
            continue
        row = measure(path, options.pipeline, as_is=options.as_is)
        rows.append(row)
        print(show(row), flush=True)
        if options.reasons:
            for reason, count in sorted(row.pinned.items(), key=lambda item: -item[1]):
                print(f"    {count:>6} positions: {reason}")
        if options.json:
            save_rows(options.json, options.pipeline, rows)
    print(summary(rows))
    if options.out:
        source = "--shared" if options.shared else "--zoo DIR"
        write_text(options.out, markdown(rows, f"python tools/zoo.py {source}", options.pipeline))


if __name__ == "__main__":
    main()

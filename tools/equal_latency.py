"""What is left at equal measured latency: irprune's widths beside uniform ratios, widths rounded.

    python tools/equal_latency.py --zoo DIR --json FILE --out docs/results/equal-latency.md

Uniform pruning removes the same ratio of every group by l1 of the producing layers and rounds
widths to multiples of 16 (8 where the network is narrower); its ratio is bisected until its
latency, measured in turns with the original, is the one that irprune reached. Kept importance is
the share of the absolute values of all weights that make channels. For the trained CIFAR-10
ResNets of the shared folder the accuracy without training stands beside it. Rows in the JSON
file are not measured again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from accuracy import SHARED, batches, test_images
from latency_targets import INEXACT, log, measured, parser_of
from results import Row, Rows, by_cpu, keep, kept, key_of, publish

from irprune import api
from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.groups import coupled_groups
from irprune.passes.choice.joint import kept_l1

L1 = "criterion=l1 members=producers"
SUM = f"{L1} aggregate=sum normalize=none worth=sum"
BISECTIONS = 7
CLOSE = 0.01


@dataclass(frozen=True)
class Job:
    """A network, what it is pruned with, and where its files go."""

    file: Path
    allow: str
    threads: int
    limit: float
    folder: Path

    def prune(self, text: str) -> tuple[api.Result, float]:
        """Prune and measure: the result and its ratio of latency."""
        settings = api.Settings(threads=self.threads, log=log)
        pipeline = f"normalize, prune{{{text} {self.allow}}}, compact"
        result = api.run(pipeline, api.load(self.file), settings=settings, verify=False)
        out = self.folder / "pruned.onnx"
        result.model.save(out)
        ratio = measured([self.file, out], self.threads, self.limit)[1]
        if ratio is None:
            raise IrpruneError("the pruned file does not run", file=self.file)
        return result, ratio[0]

    def importance(self, result: api.Result) -> float:
        """The share of all l1 importance that a result keeps."""
        allow = ("inexact",) if self.allow else ()
        channels = analyse(result.base.ir.graph, allow=allow)
        return kept_l1(channels, coupled_groups(channels), channels.keep_of(result.plan))

    def uniform(self, target: float, align: int) -> tuple[api.Result, float] | None:
        """Uniform pruning as fast as `target`; None where no ratio is that fast."""
        low, high = 0.0, 0.98
        best: tuple[api.Result, float] | None = None
        for _ in range(BISECTIONS):
            ratio = (low + high) / 2
            found = self.prune(f"ratio={ratio:.4f} scope=local align={align} {L1}")
            if best is None or abs(found[1] - target) < abs(best[1] - target):
                best = found
            if abs(found[1] - target) <= CLOSE / 2:
                break
            low, high = (ratio, high) if found[1] > target else (low, ratio)
        return best if best is not None and best[1] <= target + 5 * CLOSE else None


def compare(job: Job, target: float, align: int) -> Row:
    """Kept importance of both at the latency that irprune reached."""
    try:
        result, ratio = job.prune(f"latency={target} device=auto {SUM}")
    except IrpruneError as error:
        return {"error": str(error)}
    row: Row = {"ratio": ratio, "kept": job.importance(result)}
    found = job.uniform(ratio, align)
    if found is None:
        return {**row, "uniform_error": "uniform widths leap past this latency"}
    return {**row, "uniform_ratio": found[1], "uniform_kept": job.importance(found[0])}


def accuracy(result: api.Result, images: np.ndarray, labels: np.ndarray, folder: Path) -> float:
    """Share of the images that a pruned model classifies rightly."""
    path = folder / "accuracy.onnx"
    result.model.save(path)
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {name: part})[0] for part in batches(images)])
    return float((logits.argmax(1) == labels).mean())


def trained(job: Job, target: float, images: np.ndarray, labels: np.ndarray) -> Row:
    """Latency and accuracy of each way to choose, at one target."""
    row: Row = {}
    for name, options in {"log": "", "sum": " worth=sum", "sum of l1": f" {SUM}"}.items():
        try:
            result, ratio = job.prune(f"latency={target} device=auto{options}")
            row[name] = {"ratio": ratio, "accuracy": accuracy(result, images, labels, job.folder)}
        except IrpruneError as error:
            row[name] = {"error": str(error)}
    found = job.uniform(target, 8)
    row["uniform"] = {"error": "its widths leap past this latency"}
    if found is not None:
        right = accuracy(found[0], images, labels, job.folder)
        row["uniform"] = {"ratio": found[1], "accuracy": right}
    return row


def tables(rows: list[tuple[list[str], Row]]) -> list[str]:
    """The rows of a CPU as markdown."""
    lines = [
        "| network | target | threads | latency | kept l1 | uniform: latency | kept l1 | more |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    gains: dict[str, list[float]] = {}
    ways = [
        "| trained network | target | threads | way | latency | accuracy without training |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for (name, target, threads), row in rows:
        start = f"| {name} | {target} | {threads} |"
        if "kept" in row and "uniform_kept" in row:
            gain = row["kept"] / row["uniform_kept"] - 1
            gains.setdefault(threads, []).append(gain)
            lines.append(
                f"{start} {row['ratio']:.3f} | {row['kept']:.3f} | "
                f"{row['uniform_ratio']:.3f} | {row['uniform_kept']:.3f} | {gain:+.1%} |"
            )
        elif "error" in row or "kept" in row:
            why = row.get("error") or row.get("uniform_error")
            lines.append(f"{start} {why} | | | | |")
        else:
            for way, cell in row.items():
                if "error" in cell:
                    ways.append(f"{start} {way} | {cell['error']} | |")
                else:
                    ways.append(f"{start} {way} | {cell['ratio']:.3f} | {cell['accuracy']:.1%} |")
    parts = []
    if gains:
        said = [
            f"- threads: {threads}: median {statistics.median(found):+.1%} importance, "
            f"{len(found)} networks."
            for threads, found in sorted(gains.items())
        ]
        parts += ["\n".join(said), "\n".join(lines)]
    return parts + (["\n".join(ways)] if len(ways) > 2 else [])


def document(rows: Rows) -> str:
    """The whole report as markdown."""
    command = "python tools/equal_latency.py --zoo DIR --json FILE --out FILE"
    parts = ["# At equal measured latency", f"`{command}`"]
    for cpu, mine in by_cpu(rows).items():
        parts += [f"## {cpu}", *tables(mine)]
    return "\n\n".join(parts) + "\n"


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--trained", nargs="*", default=["resnet20", "resnet56"], metavar="NAME")
    parser.add_argument("--target", type=float, default=0.5)
    parser.add_argument("--targets", nargs="*", type=float, default=[0.9, 0.8, 0.7, 0.6])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=8, help="seconds per measurement")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--data", type=Path, default=Path.home() / ".cache" / "irprune")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    rows = kept(args.json)

    def note(key: str, row: Row) -> None:
        rows[key] = row
        log(f"{key}: {row}")
        keep(args.json, rows)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in args.models:
            key = key_of(name, args.target, args.threads)
            allow = "allow=inexact" if name in INEXACT else ""
            file = args.zoo / f"{name}.dynamo-static.onnx"
            if key not in rows:
                job = Job(file, allow, args.threads, args.limit, folder)
                note(key, compare(job, args.target, 16))
        for name in args.trained:
            file = SHARED / "models" / "onnx" / f"{name}_cifar10.onnx"
            for target in args.targets:
                key = key_of(name, target, args.threads)
                if key not in rows:
                    args.data.mkdir(parents=True, exist_ok=True)
                    images, labels = test_images(args.images, args.data)
                    job = Job(file, "", args.threads, args.limit, folder)
                    note(key, trained(job, target, images, labels))
    text = document(rows)
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

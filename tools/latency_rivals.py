"""Measured latency at the same MACs: irprune beside Torch-Pruning, plain and with round_to=16.

    python tools/latency_rivals.py --zoo DIR --json FILE --out FILE

Torch-Pruning's ratio is bisected to half the MACs of each network, its result exported to ONNX by
the exporter that wrote the network.
irprune gets the MACs of that result as its target, once for each of the two. All four files are
timed in turns in one run. Rows in the JSON file are not measured again. Needs what
`tools/zoo_export.py --variants dynamo-static` writes, and tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
import torch_pruning as tp
import zoo_export
import zoo_models
from latency_targets import INEXACT, log, measured, parser_of
from results import Row, Rows, by_cpu, keep, kept, key_of, publish
from rivals_tools import Network
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from irprune import api
from irprune.cost import CostModel
from irprune.errors import IrpruneError
from irprune.shapes import infer

SHARE = 0.5
BISECTIONS = 6
VARIANT = "dynamo-static"
"""How the files of all are exported: what exporters make of a mean differs in speed."""
KINDS = {"plain": None, "rounded": 16}


def theirs(network: Network, round_to: int | None) -> nn.Module:
    """Torch-Pruning's result nearest to half the MACs.

    A ViT is pruned as its authors' test of torchvision does: widths that its heads divide, the
    attention's output layers ignored as such, and the width that its forward states set afterwards.
    """
    heads = network.module.encoder.layers[0].num_heads if _is_vit(network.module) else None
    step = math.lcm(round_to or 1, heads) if heads else round_to
    full, _ = tp.utils.count_ops_and_params(network.module, network.example)
    low, high = 0.0, 0.9
    best: tuple[float, nn.Module] | None = None
    for _ in range(BISECTIONS):
        ratio = (low + high) / 2
        module = copy.deepcopy(network.module)
        layers = dict(zip(network.module.modules(), module.modules(), strict=True))
        ignored = [layers[layer] for layer in network.classifiers()]
        ignored += [m for m in module.modules() if isinstance(m, NonDynamicallyQuantizableLinear)]
        tp.pruner.BasePruner(
            module, network.example,
            importance=tp.importance.GroupMagnitudeImportance(p=1),
            global_pruning=False, pruning_ratio=ratio, round_to=step, ignored_layers=ignored,
        ).step()  # fmt: skip
        if _is_vit(module):
            module.hidden_dim = module.conv_proj.out_channels
        share = tp.utils.count_ops_and_params(module, network.example)[0] / full
        if best is None or abs(share - SHARE) < abs(best[0] - SHARE):
            best = share, module
        low, high = (ratio, high) if share > SHARE else (low, ratio)
    assert best is not None
    return best[1]


def _is_vit(module: nn.Module) -> bool:
    from torchvision.models import VisionTransformer  # after zoo_models, which makes it importable

    return isinstance(module, VisionTransformer)


def macs(path: Path) -> int:
    """MACs of a model file, as irprune counts them."""
    model = api.load(path)
    infer(model.ir)
    return CostModel(model.ir.graph).full().macs


def prepare(name: str, file: Path, folder: Path) -> dict[str, str]:
    """Write Torch-Pruning's files of a network, unless they are there; return what failed."""
    missing = {
        kind: r for kind, r in KINDS.items() if not (folder / f"theirs-{kind}.onnx").exists()
    }
    if not missing:
        return {}
    zoo = zoo_models.networks()[name]
    network = Network(name, zoo_export.build(zoo), file, zoo.inputs(1, 2))
    failed = {}
    for kind, round_to in missing.items():
        try:
            module = theirs(network, round_to)
            variant = zoo_export.VARIANTS[VARIANT]
            path = folder / f"theirs-{kind}.onnx"
            zoo_export.export(module, network.example, path, variant)
        except Exception as error:  # whatever the tool or its export raises is its result
            failed[kind] = f"{type(error).__name__}: {error}".split("\n")[0][:160]
    return failed


def judge(name: str, file: Path, options: str, threads: int, limit: float, folder: Path) -> Row:
    """Ratios and MACs of both tools' files; an error instead of the figures of a tool."""
    paths, row = [file], Row()
    names = []
    whole = macs(file)
    failed = prepare(name, file, folder)
    for kind in KINDS:
        if kind in failed:
            row[kind] = {"error": failed[kind]}
            continue
        path = folder / f"theirs-{kind}.onnx"
        share = macs(path) / whole
        mine = folder / f"ours-{kind}.onnx"
        allow = " allow=inexact" if name in INEXACT else ""
        text = f"normalize, prune{{macs={share:.4f}{allow} {options}}}, compact"
        try:
            settings = api.Settings(threads=threads, log=log)
            result = api.run(text, api.load(file), settings=settings, verify=False)
            result.model.save(mine)
        except IrpruneError as error:
            row[kind] = {"error": f"irprune: {error}"[:160]}
            continue
        row[kind] = {"macs": share, "our_macs": macs(mine) / whole}
        paths += [path, mine]
        names.append(kind)
    ratios = measured(paths, threads, limit)[1:] if names else []
    for kind, their, our in zip(names, ratios[::2], ratios[1::2], strict=True):
        row[kind] |= {"theirs": their, "ours": our}
        if their and our:
            row[kind]["quotient"] = our[0] / their[0]
    return row


def table(rows: list[tuple[list[str], Row]]) -> str:
    """The rows of a CPU as markdown."""
    lines = [
        "| network | threads | kind | MACs theirs | ours | latency theirs | ours | ours / theirs |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, threads), row in rows:
        for kind, cell in row.items():
            if "quotient" not in cell:
                why = cell.get("error", "crash")
                lines.append(f"| {name} | {threads} | {kind} | {why} | | | | |")
                continue
            lines.append(
                f"| {name} | {threads} | {kind} | {cell['macs']:.3f} | {cell['our_macs']:.3f} | "
                f"{cell['theirs'][0]:.3f} | {cell['ours'][0]:.3f} | {cell['quotient']:.3f} |"
            )
    return "\n".join(lines)


def medians(rows: list[tuple[list[str], Row]]) -> str:
    """What the rows of a CPU come to, by threads and kind."""
    found: dict[tuple[str, str], list[float]] = {}
    for (_, threads), row in rows:
        for kind, cell in row.items():
            if "quotient" in cell:
                found.setdefault((threads, kind), []).append(cell["quotient"])
    return "\n".join(
        f"- threads: {threads}, {kind}: median {statistics.median(quotients):.3f}, lower on "
        f"{sum(q < 1 for q in quotients)} of {len(quotients)}."
        for (threads, kind), quotients in sorted(found.items())
    )


def document(rows: Rows, options: str) -> str:
    """The whole report as markdown."""
    command = "python tools/latency_rivals.py --zoo DIR --json FILE --out FILE"
    note = (
        f"torch-pruning {version('torch-pruning')}, local l1, its ratio bisected to {SHARE} of the "
        "MACs; latency relative to the original on onnxruntime's CPU provider. "
        f"irprune: `prune{{macs=THEIRS {options}}}`."
    )
    parts = ["# Latency at the same MACs", f"`{command}`", note]
    for cpu, mine in by_cpu(rows).items():
        parts += [f"## {cpu}", medians(mine), table(mine)]
    return "\n\n".join(parts) + "\n"


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--options", default="latency=least device=auto", help="further options of prune"
    )
    parser.add_argument("--limit", type=float, default=20, help="seconds per measurement")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep Torch-Pruning's files here")
    parser.add_argument("--prepare", action="store_true", help="only write Torch-Pruning's files")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = kept(args.json)
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.models:
            key = key_of(name, args.threads)
            if key in rows:
                continue
            file = args.zoo / f"{name}.{VARIANT}.onnx"
            folder = (args.keep or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            if args.prepare:
                log(f"{name}: {prepare(name, file, folder) or 'prepared'}")
                continue
            rows[key] = judge(name, file, args.options, args.threads, args.limit, folder)
            log(f"{key}: {rows[key]}")
            keep(args.json, rows)
    text = document(rows, args.options)
    publish(text, args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

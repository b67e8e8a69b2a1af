"""All networks of torchvision and one per module of timm through `from_torch`, and the table.

    python tools/torch_zoo.py --json docs/results/torch.json --out docs/results/torch.md
    python tools/torch_zoo.py --json torch.json --models 'resnet*' timm-vit_tiny_patch16_224
    python tools/torch_zoo.py --json torch.json --trained --images 10000

For each network, with random but not degenerate weights: the graph's outputs against eager PyTorch,
every state_dict name an initializer of its shape, ``prune{ratio=0.4}`` proved, and
`apply_to_module` against the compacted graph, or why the module's forward does not allow it.
``--trained`` measures the shared CIFAR-10 state_dicts: in eager PyTorch, after `from_torch`, and
after a run that removes nothing and `export_state_dict`.

What the JSON file holds already is left out, so a run can be stopped and started again. Every
network has a process of its own: one that takes it down is a row too. Needs tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

from torch_check import BOUND, PRUNE, Row, trained
from torchvision import models as vision
from zoo_export import matching
from zoo_models import Network, networks

from irprune.atomic import write_text

TOOL = Path(__file__).with_name("torch_check.py")
_REQUIRED = """
    resnet* resnext* wide_resnet* vgg* densenet* mobilenet* efficientnet* regnet* convnext* vit*
    swin_*
"""
REQUIRED = _REQUIRED.split()
"""Families of torchvision of which every network must shrink in place as the graph does."""
GIANT = 150_000_000
"""Parameters from which on a network comes last."""
TRAINED = ("resnet20", "resnet56")


def required(row: Row | Network) -> bool:
    """Whether a network stands in the list of those that must shrink in place."""
    name = row.model if isinstance(row, Row) else row.name
    return row.source == "torchvision classification" and any(fnmatch(name, p) for p in REQUIRED)


def cost(network: Network) -> tuple[int, int]:
    """Where a network stands in the order: required ones first, small ones first, giants last."""
    size = 0
    if not network.name.startswith("timm-"):
        size = next(iter(vision.get_model_weights(network.name))).meta["num_params"]
    rank = 3 if size >= GIANT else 0 if required(network) else 1 if network.dense else 2
    return rank, size


def measured(network: Network, minutes: float) -> Row:
    """Check one network in a process of its own, on one thread."""
    row = Row(network.name, network.source, "crashed")
    command = [sys.executable, str(TOOL), network.name]
    try:
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=60 * minutes,
            capture_output=True, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        row.reason = f"took longer than {minutes:g} minutes"
        return row
    try:
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or [""])[-1]
        row.reason = f"exit status {done.returncode}: {last}"
        return row


def markdown(rows: Sequence[Row], accuracy: dict[str, dict[str, float]], command: str) -> str:
    """Return the document."""
    tried = [row for row in rows if row.verdict != "not exported"]
    taken = [row for row in tried if row.taken]
    shrunk = [row for row in taken if row.ok and not row.unfit]
    must = [row for row in rows if required(row)]
    missing = [name for name in networks() if name not in {row.model for row in rows}]
    held = sum(row.ok and not row.unfit for row in must)
    lines = [
        f"# PyTorch: {len(taken)} of {len(tried)} networks taken in, pruned and proved; "
        f"{len(shrunk)} shrunk in place",
        "",
        f"`{command}`, pipeline `{PRUNE}`, random weights.",
        "*eager*: largest relative error of the graph of `from_torch` against eager PyTorch, over",
        f"all outputs (the bound is {BOUND:g}; where it is missed, *float64* is that of both",
        "computed in float64, the graph by `to_torch`: what was missed by is then eager PyTorch's",
        "own rounding, which random weights magnify); *names*: every name of the state_dict is an",
        "initializer of its shape; *kept*: share of the parameters, * where all channels pass",
        "statistics over channels and `allow=inexact` was given; *module*: the module after",
        f"`apply_to_module` against the compacted graph (bound {BOUND:g}); *state*:",
        "`export_state_dict` equals its state_dict.",
        "",
        f"Of torchvision's {len(must)} ResNet, VGG, DenseNet, MobileNet, EfficientNet, RegNet,",
        f"ConvNeXt, ViT and Swin networks measured, {held} hold everything.",
    ]
    if accuracy:
        lines += ["", "## Trained state_dicts on CIFAR-10", ""]
        heads = list(next(iter(accuracy.values())))
        lines += [f"| network | {' | '.join(heads)} |"]
        lines += ["| --- |" + " ---: |" * len(heads)]
        for name, row in accuracy.items():
            cells = [f"{row[h]:.0f}" if h == "images" else f"{row[h]:.2%}" for h in heads]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for kind in dict.fromkeys(_kind(row) for row in rows):
        lines += ["", f"## {kind}", ""]
        lines += _table([row for row in rows if _kind(row) == kind])
    bad = [row for row in rows if not row.ok]
    if bad:
        lines += ["", "## What does not hold", ""]
        lines += [f"- {row.model}: {row.verdict}: {row.reason or _failing(row)}" for row in bad]
    unfit = [row for row in rows if row.unfit]
    if unfit:
        lines += ["", "## Refused by `apply_to_module` or `export_state_dict`", ""]
        lines += [f"- {row.model}: {row.unfit}" for row in unfit]
    if missing:
        lines += ["", f"Not measured yet ({len(missing)}): {', '.join(missing)}."]
    return "\n".join(lines) + "\n"


def _kind(row: Row) -> str:
    return "timm" if row.source.startswith("timm") else row.source


def _failing(row: Row) -> str:
    names = [name for name in ("names", "state") if not getattr(row, name)]
    far = [name for name in ("error", "module") if (getattr(row, name) or 0) > BOUND]
    return ", ".join(names + far)


def _table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| network | parameters | verdict | eager | float64 | names | kept | module | state |",
        "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    for row in sorted(rows, key=lambda row: row.model):
        eager, double, module = (
            "" if error is None else f"{error:.1e}" for error in (row.error, row.double, row.module)
        )
        kept = "" if row.params is None else f"{row.params:.0%}{'*' * row.inexact}"
        names = "yes" if row.names else "no"
        state = "yes" if row.state else "" if row.unfit else "no"
        cells = [row.model, f"{row.parameters / 1e6:.1f} M", row.verdict, eager, double, names]
        lines.append(
            f"| {' | '.join([*cells, kept, module or 'refused' * bool(row.unfit), state])} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--json", type=Path, required=True, help="the rows, read and extended")
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--again", nargs="*", default=[], help="drop these verdicts and redo them")
    parser.add_argument("--minutes", type=float, default=20, help="that one network may take")
    parser.add_argument("--trained", action="store_true", help="measure the CIFAR-10 ResNets only")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=Path.home() / ".cache" / "irprune")
    options = parser.parse_args()
    saved = json.loads(options.json.read_text()) if options.json.exists() else {}
    accuracy = saved.get("trained", {})
    rows = [Row(**row) for row in saved.get("networks", [])]

    def save() -> None:
        content = {"trained": accuracy, "networks": [asdict(row) for row in rows]}
        write_text(options.json, json.dumps(content, indent=1) + "\n")

    if options.trained:
        for name in TRAINED:
            figures = trained(name, options.images, options.data)
            accuracy[name] = {"images": options.images, **figures}
            print(name, accuracy[name], flush=True)
            save()
    else:
        chosen = [networks()[name] for name in matching(networks(), options.models)]
        for network in sorted(chosen, key=cost):
            old = [row for row in rows if row.model == network.name]
            if any(row.verdict not in options.again for row in old):
                continue
            row = measured(network, options.minutes)
            rows = [other for other in rows if other not in old] + [row]
            save()
            print(json.dumps({"ok": row.ok, **asdict(row)}), flush=True)
    if options.out:
        command = f"python tools/torch_zoo.py --json {options.json} --out {options.out}"
        write_text(options.out, markdown(rows, accuracy, command))
    return int(not all(row.ok or row.verdict == "not exported" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())

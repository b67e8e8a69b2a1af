"""Training-step throughput of pruned networks beside the original ones, interleaved.

    python tools/pruned_speed.py --models resnet50 --batch 8 --size 96 --json pruned.json
    python tools/pruned_speed.py --device cuda --batch 256 --size 224 --prune align=64 \\
        --json pruned.json --out docs/results/pruned-speed.md

Both are lowered from the graph IR; steps and ratio are those of train_speed.py: forward, loss,
backward, SGD with momentum; on a CPU in float32, on CUDA under bfloat16 autocast, channels-last.
The ratio is the original's time over the pruned one's, above 1 where the pruned one is faster:
the median, and between which numbers half of the rounds lie. Rows are kept in the JSON file; what
it holds by model, device, batch, size, threads and pruning is not measured again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from train_speed import KEY, key_of, side_by_side
from zoo_models import networks, photos

import irprune
from irprune.atomic import write_text


def measure(name: str, options: argparse.Namespace, key: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one network."""
    torch.manual_seed(0)
    network = networks()[name].build().eval()
    model = irprune.from_torch(network, (photos(2, key["size"], 0),))
    pipeline = f"normalize, prune{{macs={options.keep} {options.prune}}}, compact"
    small = irprune.run(pipeline, model, verify=False)
    before, after = small.report["before"], small.report["after"]
    pair = {"original": irprune.to_torch(model), "pruned": irprune.to_torch(small.model)}
    return {
        **key,
        "macs": after["macs"] / before["macs"],
        "params": after["params"] / before["params"],
        **side_by_side(pair, key["size"], options),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as markdown."""
    lines = [
        "| model | prune | MACs | params | device | batch | size | original | pruned | ratio "
        "| half of them |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        device = f"{row['device']} ({row['hardware']}, {row['threads']} threads)"
        times = f"{1e3 * row['original_s']:.1f} ms | {1e3 * row['pruned_s']:.1f} ms"
        lines.append(
            f"| {row['model']} | `{row['prune']}` | {row['macs']:.3f} | {row['params']:.3f} "
            f"| {device} | {row['batch']} | {row['size']} | {times} "
            f"| {row['ratio']:.2f} | {row['low']:.2f} to {row['high']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def document(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    head = [
        "# Training steps of pruned networks beside the original ones",
        "",
        "`python tools/pruned_speed.py --json FILE`: a step of each in turn; ratio: the original's",
        "time over the pruned one's, the median over the rounds. MACs, params: what is left.",
        "",
    ]
    return "\n".join(head) + "\n" + table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["resnet50"])
    parser.add_argument("--keep", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--prune", default="", help="further options of the pass")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, required=True, help="the rows, read and extended")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = json.loads(options.json.read_text()) if options.json.exists() else []
    pruning = f"macs={options.keep} {options.prune}".strip()
    for name in options.models:
        key = key_of(name, options) | {"prune": pruning}
        if any({k: row[k] for k in (*KEY, "prune")} == key for row in rows):
            continue
        row = measure(name, options, key)
        rows.append(row)
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
        print(table([row]).splitlines()[-1], flush=True)
    if options.out:
        write_text(options.out, document(rows))


if __name__ == "__main__":
    main()

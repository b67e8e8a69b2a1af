"""Training-step throughput of lowered networks beside torchvision's own modules, interleaved.

    python tools/train_speed.py --models resnet50 --batch 8 --size 96 --rounds 6 --json speed.json
    python tools/train_speed.py --device cuda --batch 256 --size 224 --out docs/results/lowering.md

Each round takes one step (forward, loss, backward, SGD with momentum) of the module and one of the
lowered graph, in turns that swap; the ratio is that of the medians, above 1 where the lowered one
is faster. On a CPU in float32, on CUDA under bfloat16 autocast, both channels-last. Rows are kept
in the JSON file, one per model and device.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from zoo_models import networks, photos

import irprune

MODELS = ["resnet50", "mobilenet_v2", "densenet121", "vgg16", "vit_b_16"]
WARM_UP = 2


def stepper(module: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], float]:
    """Return a function that takes one training step and tells its seconds."""
    module = module.to(x.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(module.parameters(), 1e-4, momentum=0.9)
    cuda = x.device.type == "cuda"

    def step() -> float:
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=cuda):
            loss = functional.cross_entropy(module(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one network."""
    torch.manual_seed(0)
    network = networks()[name]
    module = network.build()
    size = network.size if name.startswith("vit") else options.size
    model = irprune.from_torch(module, (photos(2, size, 0),))
    lowered = irprune.to_torch(model)
    for part in module.modules():  # the graph has none: it was exported in eval mode
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    device = torch.device(options.device)
    x = photos(options.batch, size, 1).to(device, memory_format=torch.channels_last)
    labels = torch.arange(options.batch, device=device) % 1000
    steps = {"module": stepper(module, x, labels), "lowered": stepper(lowered, x, labels)}
    seconds: dict[str, list[float]] = {"module": [], "lowered": []}
    for number in range(WARM_UP + options.rounds):
        order = list(steps) if number % 2 else list(steps)[::-1]
        for kind in order:
            spent = steps[kind]()
            if number >= WARM_UP:
                seconds[kind].append(spent)
    middle = {kind: median(each) for kind, each in seconds.items()}
    cuda = device.type == "cuda"
    return {
        "model": name,
        "hardware": torch.cuda.get_device_name() if cuda else platform.processor() or "CPU",
        "device": device.type,
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "size": size,
        "rounds": options.rounds,
        "module_s": middle["module"],
        "lowered_s": middle["lowered"],
        "ratio": middle["module"] / middle["lowered"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as markdown."""
    lines = ["| model | device | batch | size | module | lowered | throughput ratio |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows:
        device = f"{row['device']} ({row['hardware']}, {row['threads']} threads)"
        times = f"{1e3 * row['module_s']:.1f} ms | {1e3 * row['lowered_s']:.1f} ms"
        cells = f"{row['model']} | {device} | {row['batch']} | {row['size']} | {times}"
        lines.append(f"| {cells} | {row['ratio']:.3f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
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
    for name in options.models:
        row = measure(name, options)
        rows = [r for r in rows if (r["model"], r["device"]) != (name, row["device"])] + [row]
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(table([row]).splitlines()[-1], flush=True)
    if options.out:
        options.out.write_text(table(rows))


if __name__ == "__main__":
    main()

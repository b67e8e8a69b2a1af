"""Training-step throughput of lowered networks beside torchvision's own modules, interleaved.

    python tools/train_speed.py --models resnet50 --batch 8 --size 96 --rounds 6 --json speed.json
    python tools/train_speed.py --device cuda --batch 256 --size 224 --json speed.json \\
        --out docs/results/train-speed.md

Each round takes one step (forward, loss, backward, SGD with momentum) of the module and one of the
lowered graph, in turns that swap. The ratio is the module's time over the lowered one's, round by
round, above 1 where the lowered one is faster: the median, and between which numbers half of the
rounds lie. On a CPU in float32, on CUDA under bfloat16 autocast, both channels-last. Before, loss
and gradients of a step on a few images are compared, on the CPU in float32, as lowering_zoo does;
a row that is unequal has no business in the table and ends the run. Rows are kept in the JSON file;
what it holds by model, device, batch, size and threads is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from lowering_zoo import BOUND, step_errors
from torch import nn
from torch.nn import functional
from zoo_models import networks, photos
from zoo_weights import randomise

import irprune
from irprune.atomic import write_text
from irprune.backends.ort.machine import describe

MODELS = ["resnet50", "mobilenet_v2", "densenet121", "vgg16", "vit_b_16"]
OWN_SIZE = ("vit", "vgg")
"""Networks that are made for one image size; others take the size that is asked for."""
WARM_UP = 2
COMPARED = 4
"""Images whose loss and gradients are compared."""
KEY = ("model", "device", "batch", "size", "threads")


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


def side_by_side(
    networks: dict[str, nn.Module], size: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the seconds of a step of two networks, and the ratio of the first's to the second's.

    They take turns that swap from round to round, on the same images, of an edge of `size`.
    """
    device = torch.device(options.device)
    x = photos(options.batch, size, 1).to(device, memory_format=torch.channels_last)
    labels = torch.arange(options.batch, device=device) % 1000
    steps = {kind: stepper(network, x, labels) for kind, network in networks.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for number in range(WARM_UP + options.rounds):
        for kind in list(steps) if number % 2 else list(steps)[::-1]:
            spent = steps[kind]()
            if number >= WARM_UP:
                seconds[kind].append(spent)
    low, ratio, high = quantiles([a / b for a, b in zip(*seconds.values(), strict=True)], n=4)
    return {
        "hardware": hardware(device),
        "rounds": options.rounds,
        **{f"{kind}_s": median(spent) for kind, spent in seconds.items()},
        "ratio": ratio,
        "low": low,
        "high": high,
    }


def hardware(device: torch.device) -> str:
    """Return the name of what computes."""
    return torch.cuda.get_device_name() if device.type == "cuda" else describe()["cpu"]


def key_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what tells the row of one network from others."""
    size = networks()[name].size if name.startswith(OWN_SIZE) else options.size
    values = (name, options.device, options.batch, size, options.threads)
    return dict(zip(KEY, values, strict=True))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of one network."""
    torch.manual_seed(0)
    module = networks()[name].build()
    key = key_of(name, options)
    size = key["size"]
    randomise(module, photos(2, size, 0), 0)  # a fresh ViT's head is zero: all gradients below too
    model = irprune.from_torch(module, (photos(2, size, 0),))
    lowered = irprune.to_torch(model)
    for part in module.modules():  # the graph has none: it was exported in eval mode
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    loss, gradients, _ = step_errors(module, lowered, photos(COMPARED, size, 1))
    if max(loss, gradients) > BOUND:
        raise SystemExit(f"{name}: loss is off by {loss:.1e}, gradients by {gradients:.1e}")
    return {
        **key,
        "loss_error": loss,
        "gradient_error": gradients,
        **side_by_side({"module": module, "lowered": lowered}, size, options),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as markdown."""
    lines = [
        "| model | device | batch | size | module | lowered | throughput ratio | half of them "
        "| loss | gradients |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        device = f"{row['device']} ({row['hardware']}, {row['threads']} threads)"
        times = f"{1e3 * row['module_s']:.1f} ms | {1e3 * row['lowered_s']:.1f} ms"
        cells = f"{row['model']} | {device} | {row['batch']} | {row['size']} | {times}"
        spread = f"{row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f}"
        errors = f"{row['loss_error']:.1e} | {row['gradient_error']:.1e}"
        lines.append(f"| {cells} | {spread} | {errors} |")
    return "\n".join(lines) + "\n"


def document(rows: list[dict[str, Any]]) -> str:
    """Return the page."""
    head = [
        "# Training steps of lowered networks beside torchvision's",
        "",
        "`python tools/train_speed.py --json FILE`: a step of each in turn; ratio: the module's",
        "time over the lowered one's, the median over the rounds. loss, gradients: relative errors",
        f"of one step on {COMPARED} images, at most {BOUND:g}.",
        "",
    ]
    return "\n".join(head) + "\n" + table(rows)


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
        key = key_of(name, options)
        if any({k: row[k] for k in KEY} == key for row in rows):
            continue
        row = measure(name, options)
        rows.append(row)
        write_text(options.json, json.dumps(rows, indent=1) + "\n")
        print(table([row]).splitlines()[-1], flush=True)
    if options.out:
        write_text(options.out, document(rows))


if __name__ == "__main__":
    main()

"""Accuracy without any training at shrinking MACs, beside Torch-Pruning, on a trained ResNet.

    python tools/accuracy.py --net resnet56 --images 2000 --out docs/results
    python tools/accuracy.py --net resnet56 --images 2000 --out docs/results --again 'irprune *'

CIFAR-10's test images through `resnetNN_cifar10.onnx` of the shared folder, pruned by each
criterion with the other options at their defaults, and through the same network and weights in
PyTorch pruned by Torch-Pruning, whose pruning ratio is bisected to the same MACs: over all
channels, and over the channels inside the blocks alone (`inner`: the residual stream kept).
*Joint bounds* choose as for several targets at once, with a second bound that never binds.
Rows that OUT/accuracy-NET-IMAGES.json holds already are not measured again, unless they are named.
Needs tools/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch_pruning as tp
from cifar_resnet import load_resnet
from torch import nn
from zoo_export import matching

from irprune import api
from irprune.atomic import write_text

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).parents[2] / "shared"))
TARGETS = (0.9, 0.8, 0.7, 0.6, 0.5)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BATCH = 250
BISECTIONS = 9
Curve = list[tuple[float, float]]
"""(share of the MACs, accuracy) per target."""

OURS = {
    "reconstruction": "",
    "l2": "criterion=l2",
    "l1": "criterion=l1",
    "linf": "criterion=linf",
    "fpgm": "criterion=fpgm",
    "random": "criterion=random",
    "l2, producers' weights": "criterion=l2 members=producers",
    "l2, all weights": "criterion=l2 members=all",
    "l1 local, producers' weights": "criterion=l1 members=producers scope=local",
    "joint bounds, worth=log": "params=1.0 align=1 worth=log",
    "joint bounds, worth=sum": "params=1.0 align=1 worth=sum",
}
THEIRS: dict[str, Callable[[], object]] = {
    "magnitude l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "magnitude l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "magnitude l2, max": lambda: tp.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
    "BN scale": lambda: tp.importance.BNScaleImportance(),
    "FPGM": lambda: tp.importance.FPGMImportance(),
    "random": lambda: tp.importance.RandomImportance(),
}


def test_images(count: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(count, 3, 32, 32)``, normalised, and labels ``(count,)``."""
    packed = folder / "cifar10.npz"
    if not packed.exists():
        unpack = [sys.executable, str(SHARED / "data" / "unpack.py"), "cifar10", str(folder)]
        subprocess.run(unpack, check=True)
    data = np.load(packed, allow_pickle=False)
    images = (data["x_test"][:count] / 255 - MEAN) / STD
    return images.transpose(0, 3, 1, 2).astype(np.float32).copy(), data["y_test"][:count]


def batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images in batches."""
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH]


def ours(path: Path, options: str, images: np.ndarray, labels: np.ndarray) -> Curve:
    """Prune the ONNX file to each target; evaluate with onnxruntime."""
    model = api.load(path)
    curve: Curve = []
    for target in TARGETS:
        pipeline = f"normalize, prune{{macs={target} {options}}}, compact"
        result = api.run(pipeline, model, verify=False)
        before, after = result.report["before"]["macs"], result.report["after"]["macs"]
        with tempfile.TemporaryDirectory() as folder:
            result.model.save(f"{folder}/small.onnx")
            session = onnxruntime.InferenceSession(f"{folder}/small.onnx")
        name = session.get_inputs()[0].name
        logits = np.concatenate([session.run(None, {name: part})[0] for part in batches(images)])
        curve.append((after / before, float((logits.argmax(1) == labels).mean())))
    return curve


def layer_macs(module: nn.Module) -> int:
    """Return the MACs of convolutions and linear layers for one image."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        positions = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        total += layer.weight.numel() * positions

    layers = [m for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [m.register_forward_hook(count) for m in layers if not getattr(m, "selects", False)]
    with torch.inference_mode():
        module(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return total


def prune_torch(net: str, importance: object, ratio: float, scope: str, inner: bool) -> nn.Module:
    """Prune the network with Torch-Pruning, the classifier kept."""
    module = load_resnet(net, SHARED)
    torch.manual_seed(0)
    ignored = [module.linear]
    if inner:
        ignored += [m for n, m in module.named_modules() if n == "conv1" or n.endswith("conv2")]
        ignored += [m for m in module.modules() if getattr(m, "selects", False)]
    pruner = tp.pruner.BasePruner(
        module,
        torch.zeros(1, 3, 32, 32),
        importance=importance,
        global_pruning=scope == "global",
        pruning_ratio=ratio,
        ignored_layers=ignored,
    )
    pruner.step()
    return module


def bisected(
    net: str, make: Callable[[], object], scope: str, inner: bool, target: float
) -> tuple[float, nn.Module]:
    """Bisect Torch-Pruning's ratio to a share of the MACs; return the nearest share and network."""
    full = layer_macs(load_resnet(net, SHARED))
    low, high = 0.0, 0.999
    best: tuple[float, nn.Module] | None = None
    for _ in range(BISECTIONS):
        module = prune_torch(net, make(), (low + high) / 2, scope, inner)
        share = layer_macs(module) / full
        if best is None or abs(share - target) < abs(best[0] - target):
            best = share, module
        low, high = ((low + high) / 2, high) if share > target else (low, (low + high) / 2)
    assert best is not None
    return best


def theirs(
    net: str,
    make: Callable[[], object],
    scope: str,
    inner: bool,
    images: np.ndarray,
    labels: np.ndarray,
) -> Curve:
    """Prune by Torch-Pruning to each target; evaluate in PyTorch."""
    curve: Curve = []
    for target in TARGETS:
        share, module = bisected(net, make, scope, inner, target)
        with torch.inference_mode():
            logits = torch.cat([module(torch.from_numpy(part)) for part in batches(images)])
        curve.append((share, float((logits.argmax(1).numpy() == labels).mean())))
    return curve


def table(curves: dict[str, Curve]) -> str:
    """Return the curves as a markdown table; MACs off by more than 2 % of the target are shown."""
    lines = ["| criterion | " + " | ".join(f"{t:.1f}" for t in TARGETS) + " | mean |"]
    lines.append("| --- |" + " ---: |" * (len(TARGETS) + 1))
    for name, curve in curves.items():
        cells = [
            f"{accuracy:.1%}" + (f" at {share:.2f}" if abs(share - t) > 0.02 * t else "")
            for t, (share, accuracy) in zip(TARGETS, curve, strict=True)
        ]
        mean = np.mean([accuracy for _, accuracy in curve])
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {mean:.1%} |")
    return "\n".join(lines)


def plot(curves: dict[str, Curve], path: Path, title: str) -> None:
    """Draw accuracy against MACs: irprune solid, Torch-Pruning's global runs dotted or dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 5))
    for name, curve in curves.items():
        if name.startswith("Torch-Pruning") and ", local" in name:
            continue
        style = "-" if name.startswith("irprune") else "--" if "inner" in name else ":"
        axes.plot(*zip(*curve, strict=True), style, marker="o", markersize=3, label=name)
    axes.set(xlabel="MACs kept", ylabel="accuracy without training", title=title)
    axes.invert_xaxis()
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(path, dpi=90, bbox_inches="tight")


def measurements(
    net: str, images: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], Curve]]:
    """Return how each row of the table is measured."""
    model = SHARED / "models" / "onnx" / f"{net}_cifar10.onnx"
    rows: dict[str, Callable[[], Curve]] = {
        f"irprune {name}": partial(ours, model, options, images, labels)
        for name, options in OURS.items()
    }
    for inner in (False, True):
        for scope in ("global", "local"):
            for name, make in THEIRS.items():
                label = f"Torch-Pruning {name}, {scope}{', inner' if inner else ''}"
                rows[label] = partial(theirs, net, make, scope, inner, images, labels)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", choices=("resnet20", "resnet56"), default="resnet56")
    parser.add_argument("--images", type=int, default=10_000, help="the first N test images")
    parser.add_argument("--data", type=Path, default=Path.home() / ".cache" / "irprune")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="PATTERN", help="only these")
    parser.add_argument("--again", nargs="+", default=[], metavar="PATTERN", help="measure anew")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = test_images(options.images, options.data)
    name = f"accuracy-{options.net}-{options.images}"
    stem = options.out / name
    rows = measurements(options.net, images, labels)
    held = stem.with_suffix(".json")
    curves: dict[str, Curve] = json.loads(held.read_text()) if held.exists() else {}
    for label in matching(rows, options.again):
        curves.pop(label, None)
    for label in matching(rows, options.rows):
        if label not in curves:
            curves[label] = rows[label]()
            print(label, curves[label], file=sys.stderr, flush=True)
            write_text(held, json.dumps(curves, indent=1) + "\n")
    curves = {label: curves[label] for label in rows if label in curves}
    title = f"{options.net}, CIFAR-10, {len(images)} test images, no training after pruning"
    command = f"python tools/accuracy.py --net {options.net} --images {len(images)}"
    missing = "".join(f"- {label}\n" for label in rows if label not in curves)
    text = f"# {title}\n\n`{command}`\n\n{table(curves)}\n\n![accuracy]({name}.png)\n"
    text += f"\nNot measured:\n\n{missing}" if missing else ""
    print(text)
    write_text(stem.with_suffix(".md"), text)
    plot(curves, stem.with_suffix(".png"), title)


if __name__ == "__main__":
    main()

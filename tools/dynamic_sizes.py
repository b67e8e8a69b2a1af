"""Prune networks whose batch and image size stay dynamic, and prove them at sizes of their own.

    python tools/dynamic_sizes.py --out docs/results/dynamic.md

Each network is exported twice by torch: with static shapes, to compare the share of free channels,
and with dynamic ones. The dynamic model is pruned once and then proved at four sizes, none of which
the exporter saw: the normalised base against the export, the pruned model against the masked base.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from irprune import api
from irprune.channels import analyse
from irprune.passbase import Context
from irprune.passes.normalize import Normalize
from irprune.plan import Plan

SHARED = Path(os.environ.get("IRPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
if (SHARED / "torchvision_cpu.py").exists():
    sys.path.insert(0, str(SHARED))
    import torchvision_cpu  # noqa: F401

from torchvision import models as zoo  # noqa: E402

PIPELINE = "normalize, prune{ratio=0.4 scope=local}, compact"
AXES = {0: "batch", 2: "height", 3: "width"}
EXPORTED = (2, 3, 96, 128)
IMAGES = ((1, 3, 64, 80), (3, 3, 65, 79), (5, 3, 101, 72), (4, 3, 120, 48))


class UNet(nn.Module):
    """Skips met by bilinear resizing and by padding to the size of the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = block(3, 16), block(16, 32), block(32, 64)
        self.inner, self.outer = block(96, 32), block(48, 16)
        self.up = nn.ConvTranspose2d(32, 32, 2, 2)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        a = self.first(image)
        b = self.second(functional.max_pool2d(a, 2))
        c = self.third(functional.max_pool2d(b, 2))
        c = functional.interpolate(c, size=b.shape[2:], mode="bilinear", align_corners=False)
        u = self.up(self.inner(torch.cat([b, c], 1)))
        rows, columns = a.shape[2] - u.shape[2], a.shape[3] - u.shape[3]
        u = functional.pad(u, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        head: Tensor = self.head(self.outer(torch.cat([a, u], 1)))
        return head


class Segmentation(nn.Module):
    """The first output of a segmentation network: the logits at the size of the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)["out"]
        return logits


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU, convolution, ReLU."""
    first, second = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
    return nn.Sequential(first, nn.BatchNorm2d(outputs), nn.ReLU(), second, nn.ReLU())


def lraspp() -> nn.Module:
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    return Segmentation(zoo.segmentation.lraspp_mobilenet_v3_large(**options))


def swin() -> nn.Module:
    """A small Swin transformer: shifted windows, padded to a multiple of the window."""
    return zoo.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=7,
    )


@dataclass(frozen=True)
class Network:
    """A network, what it shows, and its exporter."""

    name: str
    what: str
    factory: Callable[[], nn.Module]
    dynamo: bool

    def export(self, path: Path, dynamic: bool) -> None:
        """Write the network in eval mode, with seeded weights and BatchNorm statistics."""
        torch.manual_seed(0)
        network = self.factory().eval()
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                assert layer.running_mean is not None and layer.running_var is not None
                for tensor, low, high in (
                    (layer.running_mean, -0.3, 0.3),
                    (layer.running_var, 0.7, 1.3),
                    (layer.weight.data, 0.7, 1.3),
                    (layer.bias.data, -0.3, 0.3),
                ):
                    tensor.uniform_(low, high)
        options: dict[str, Any] = {"input_names": ["image"], "output_names": ["out"]}
        if self.dynamo:
            options |= {"external_data": False}
            if dynamic:
                free = dict.fromkeys(AXES, torch.export.Dim.DYNAMIC)
                options |= {"dynamic_shapes": (free,)}
        elif dynamic:
            options |= {"dynamic_axes": {"image": AXES, "out": {0: "batch"}}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both exporters announce their own deprecations
            image = (torch.randn(EXPORTED),)
            torch.onnx.export(network, image, path, dynamo=self.dynamo, verbose=False, **options)


NETWORKS = (
    Network("unet", "segmentation, Pad and Resize to the skip", UNet, True),
    Network("lraspp_mobilenet_v3_large", "segmentation, Resize to the image", lraspp, False),
    Network("shufflenet_v2_x0_5", "shape subgraph in every shuffle", zoo.shufflenet_v2_x0_5, False),
    Network("swin (2+2 blocks)", "attention in padded windows", swin, True),
    Network("mobilenet_v3_small", "squeeze and excitation", zoo.mobilenet_v3_small, True),
)


def free_share(path: Path) -> float:
    """The share of contraction channels that are not pinned, those of graph inputs aside."""
    model = api.load(path)
    Normalize().run(model, Context())
    channels = analyse(model.ir.graph)
    free = total = 0
    for site in channels.contractions:
        inner = ~channels.from_input(site)
        total += int(inner.sum())
        free += int((inner & (site.classes != 0)).sum())
    return free / total


def prove(network: Network, folder: Path) -> list[str]:
    """Export, prune and prove one network; return its rows of the table, one per size."""
    static, dynamic = folder / f"{network.name}.static.onnx", folder / f"{network.name}.onnx"
    network.export(static, dynamic=False)
    network.export(dynamic, dynamic=True)
    shares = f"{free_share(static):.1%} | {free_share(dynamic):.1%}"
    model = api.load(dynamic)
    result = api.run(PIPELINE, model, verify=False)
    before, after = result.report["before"]["params"], result.report["after"]["params"]
    rows = []
    for size in IMAGES:
        settings = api.Settings(shapes={"image": size})
        base = api.verify(model, result.base, Plan.empty(), settings=settings)
        proof = api.verify(result.base, result.model, result.plan, settings=settings)
        exporter = "dynamo" if network.dynamo else "TorchScript"
        error = "-" if proof.max_error is None else f"{proof.max_error:.1e}"
        cells = [network.name, network.what, exporter, shares, f"{after / before:.3f}"]
        cells += ["x".join(map(str, size)), base.verdict, proof.verdict, error]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the table here as markdown")
    parser.add_argument("--only", nargs="*", help="names of the networks to run")
    options = parser.parse_args()
    header = (
        "| network | what is dynamic in it | exporter | free, static | free, dynamic | params kept"
        " | size | base = original | pruned = masked base | error |"
    )
    print(header, "| --- | --- | --- | ---: | ---: | ---: | --- | --- | --- | ---: |", sep="\n")
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="irprune-dynamic-") as folder:
        for network in NETWORKS:
            if not options.only or network.name in options.only:
                rows += prove(network, Path(folder))
    proved = sum(row.count("| proved ") == 2 for row in rows)
    summary = f"{proved} of {len(rows)} sizes proved"
    print(summary)
    if options.out:
        about = [
            f"# Dynamic shapes: {summary}",
            "",
            "`python tools/dynamic_sizes.py`: each network",
        ]
        about += ["is exported with dynamic batch, height and width, pruned once by"]
        about += [f"`{PIPELINE}`, and proved at sizes", "that the exporter did not see."]
        about += ["Free: the share of contraction channels that are not pinned.", "", header]
        about += ["| --- | --- | --- | ---: | ---: | ---: | --- | --- | --- | ---: |"]
        options.out.write_text("\n".join([*about, *rows]) + "\n")
    return int(proved < len(rows))


if __name__ == "__main__":
    raise SystemExit(main())

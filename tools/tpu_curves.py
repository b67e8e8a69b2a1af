"""What structured pruning saves on a TPU: memory and step time of VGG-16 by pruned ratio.

    python tools/tpu_curves.py                   # prints the tables, draws docs/results/tpu.png

Training as in "Structured Model Pruning of Convolutional Networks on Tensor Processing Units":
batch 128, SGD with momentum, the same ratio of channels in every layer.  From the analytic model:
memory is weights, gradients and momentum (three times the weights) and all activations in XLA's
padded layout; a step takes three forward passes (forward, and backward to inputs and weights).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from irprune.backends.analytic.device import parse
from irprune.channels import Channels, analyse
from irprune.cost import CostModel
from irprune.designs import kept, ranks
from irprune.groups import coupled_groups
from irprune.model import Model
from irprune.shapes import infer

OUT = Path(__file__).parents[1] / "docs" / "results"
RATIOS = np.arange(10) / 10
BATCH = 128
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
DATA = {"CIFAR-10": (32, 512, 10), "ImageNet": (224, 4096, 1000)}
"""Height and width, width of the hidden fully connected layers, classes."""


def vgg16(size: int, hidden: int, classes: int) -> Model:
    """VGG-16 for a batch of images; the weights are zeros, for only shapes matter."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def layer(op: str, x: str, name: str, shape: tuple[int, ...], **attributes: object) -> str:
        for suffix, dims in ((".w", shape), (".b", shape[:1])):
            raw = bytes(4 * int(np.prod(dims)))
            weights.append(helper.make_tensor(name + suffix, TensorProto.FLOAT, dims, raw, True))
        nodes.append(
            helper.make_node(op, [x, name + ".w", name + ".b"], [name], name, **attributes)
        )
        return name

    def plain(op: str, x: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, [x], [f"{x}.{op}"], f"{x}.{op}", **attributes))
        return f"{x}.{op}"

    x, width = "images", 3
    for block, (layers, filters) in enumerate(BLOCKS):
        for k in range(layers):
            name = f"conv{block + 1}_{k + 1}"
            shape = (filters, width, 3, 3)
            x = plain("Relu", layer("Conv", x, name, shape, pads=[1, 1, 1, 1]))
            width = filters
        x = plain("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = plain("Flatten", x)
    features = width * (size // 32) ** 2
    for name, outputs in (("fc6", hidden), ("fc7", hidden)):
        x = plain("Relu", layer("Gemm", x, name, (outputs, features), transB=1))
        features = outputs
    y = layer("Gemm", x, "fc8", (classes, features), transB=1)
    ends = [
        helper.make_tensor_value_info("images", TensorProto.FLOAT, [BATCH, 3, size, size]),
        helper.make_tensor_value_info(y, TensorProto.FLOAT, [BATCH, classes]),
    ]
    graph = helper.make_graph(nodes, "vgg16", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = Model.from_proto(model)
    infer(made.ir)
    return made


def lengths(channels: Channels) -> np.ndarray:
    """Axis lengths at each of the ratios, shape ``(ratios, axes)``."""
    groups = coupled_groups(channels)
    sizes = [int(ranks(group).max()) + 1 for group in groups]
    plans = [kept(channels, groups, [round(n * (1 - r)) for n in sizes]) for r in RATIOS]
    return np.stack([channels.lengths(keep) for keep in plans])


def curves(model: Model, device: str) -> dict[str, np.ndarray]:
    """Parameters, MiB and milliseconds per ratio, padded and not."""
    channels = analyse(model.ir.graph)
    at = lengths(channels)
    count = CostModel(model.ir.graph).of_plan
    groups = coupled_groups(channels)
    sizes = [int(ranks(group).max()) + 1 for group in groups]
    params = [
        count(channels.plan(kept(channels, groups, [round(n * (1 - r)) for n in sizes]))).params
        for r in RATIOS
    ]
    return {"parameters": np.array(params) / 1e6, **training_cost(channels, at, device, {})}


def training_cost(
    channels: Channels, at: np.ndarray, device: str, symbols: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """MiB, milliseconds and GMACs of a training step, one per row of lengths ``(k, axes)``."""
    found = {}
    for name, tag in ((device, ""), ("cache-line:1", " unpadded")):
        chosen = parse(name)
        assert chosen is not None
        weights = chosen.padded(channels, symbols, "weights").total(at)
        activations = chosen.padded(channels, symbols, "activations").total(at)
        found[f"memory{tag}"] = (3 * weights + activations) / 2**20
    chosen = parse(device)
    assert chosen is not None
    found["step"] = 3e3 * chosen.padded(channels, symbols, "time").total(at)
    found["macs"] = chosen.padded(channels, symbols, "macs").total(at) / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="tpu-v2")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    found = {name: curves(vgg16(*shape), options.device) for name, shape in DATA.items()}
    text = table(found, options.device)
    print(text)
    (options.out / "tpu.md").write_text(text + "\n")
    draw(found, options.out / "tpu.png")


def table(found: dict[str, dict[str, np.ndarray]], device: str) -> str:
    """The curves as Markdown."""
    lines = [
        f"# VGG-16 on {device}, by the analytic model",
        "",
        "`python tools/tpu_curves.py`: training memory and step time at batch 128 when every layer",
        "loses the same ratio of its channels. No TPU was used; peaks are nominal.",
    ]
    for name, curve in found.items():
        lines += [
            "",
            f"## {name}",
            "",
            "| pruned ratio | parameters (M) | memory (MiB) | without padding (MiB) "
            "| padded GMACs | step (ms) |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for k, ratio in enumerate(RATIOS):
            numbers = (
                curve[c][k] for c in ("parameters", "memory", "memory unpadded", "macs", "step")
            )
            lines.append(f"| {ratio:.1f} | " + " | ".join(f"{n:.1f}" for n in numbers) + " |")
    return "\n".join([*lines, "", "![memory and step time by pruned ratio](tpu.png)"])


def draw(found: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Memory and step time, each relative to the unpruned model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 7), sharex=True)
    for column, (name, curve) in enumerate(found.items()):
        memory, step = axes[:, column]
        memory.plot(RATIOS, curve["memory"], "o-", label="memory, padded")
        memory.plot(RATIOS, curve["memory unpadded"], "--", label="memory, without padding")
        memory.set(title=f"VGG-16, {name}", ylabel="memory (MiB)", ylim=(0, None))
        other = memory.twinx()
        other.plot(RATIOS, curve["parameters"], "s:", color="tab:green", label="parameters")
        other.set(ylabel="parameters (M)", ylim=(0, None))
        memory.legend(loc="lower left")
        other.legend(loc="upper right")
        step.plot(RATIOS, curve["step"], "o-", color="tab:red")
        step.set(xlabel="pruned ratio", ylabel="step time (ms)", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

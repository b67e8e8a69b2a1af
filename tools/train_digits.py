"""Train the example classifier of `make demo` and write it with its held-out images.

A small residual network on scikit-learn's 8x8 digits (`sklearn.datasets.load_digits`, the test
part of UCI "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998, CC BY 4.0).
It holds what a structured pruner has to understand: residual sums with and without a shortcut
projection, a concatenation, a depthwise convolution, BatchNorm, and a classifier behind a
global average pool.

Training makes whole channels unimportant, so that half of the MACs can go without retraining:
a group lasso on the BatchNorm scales and shifts of each coupled channel. It combines the
penalty on BatchNorm scales of Network Slimming (Liu et al. 2017, arXiv:1708.06519), the grouping
of everything that vanishes with a channel (DepGraph, Fang et al. 2023, arXiv:2301.12900) and the
group lasso of Yuan and Lin (2006, "Model selection and estimation in regression with grouped
variables"), as a proximal step after each SGD step. Before a ReLU, a channel with neither scale
nor shift is zero for every input. A lasso on the kernels takes the place of weight decay: the
kernels of such a channel end at zero too, so that weight magnitudes rank it as low as its
BatchNorm scale does. The penalties were chosen on a part of the training images; the held-out
images took no part in training or choice.

Writes `digits.onnx` (input `input`, float32 [batch, 1, 8, 8], pixel values in 0..1; output
`logits`, float32 [batch, 10]) and `digits_test.npz` (`input` float32 [540, 1, 8, 8], `label`
int64 [540]). The same options give the same files on one machine with the same libraries.
Takes about one minute on one core.

Usage: python tools/train_digits.py [--out DIR] [--seed N] [--epochs N] [--sparsity X]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

BATCH = 64
PEAK_RATE = 0.1
LABEL_SMOOTHING = 0.1
KERNEL_LASSO = 1e-3
OPSET = 17
TOLERANCE = 1e-5


class ConvNorm(nn.Module):
    """A convolution without bias, and BatchNorm: [batch, cin, h, w] -> [batch, cout, h', w']."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(
            cin, cout, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class Residual(nn.Module):
    """`relu(shortcut(x) + second(relu(first(x))))`; the shortcut projects if the shape changes."""

    def __init__(self, cin: int, inner: int, cout: int, stride: int = 1):
        super().__init__()
        self.first = ConvNorm(cin, inner, stride=stride)
        self.second = ConvNorm(inner, cout)
        same = cin == cout and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(cin, cout, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.first(x))
        return functional.relu(self.shortcut(x) + self.second(inner))


class Parallel(nn.Module):
    """A 1x1 and a 3x3 convolution side by side, concatenated: [.., cin, ..] -> [.., 2*each, ..]."""

    def __init__(self, cin: int, each: int):
        super().__init__()
        self.point = ConvNorm(cin, each, kernel=1)
        self.spatial = ConvNorm(cin, each)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(torch.cat([self.point(x), self.spatial(x)], dim=1))


class Separable(nn.Module):
    """A depthwise 3x3 convolution, then a 1x1 convolution."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.depthwise = ConvNorm(cin, cin, groups=cin)
        self.pointwise = ConvNorm(cin, cout, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.pointwise(functional.relu(self.depthwise(x))))


class Coupled(NamedTuple):
    """BatchNorms whose channel `i` must vanish together.

    `weight` scales their penalty, so that about half of every group or more vanishes.
    """

    weight: float
    norms: list[nn.BatchNorm2d]


class DigitNet(nn.Module):
    """[batch, 1, 8, 8] in 0..1 -> logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, 32)
        self.plain = Residual(32, 48, 32)
        self.parallel = Parallel(32, 32)
        self.down = Residual(64, 64, 96, stride=2)
        self.separable = Separable(96, 128)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        x = self.separable(self.down(self.parallel(self.plain(x))))
        logits: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return logits

    def coupled(self) -> list[Coupled]:
        """The groups of channels that vanish together, with the penalty on each."""
        units: list[tuple[float, list[Any]]] = [
            (1.8, [self.stem, self.plain.second]),
            (0.9, [self.plain.first]),
            (0.45, [self.parallel.point]),
            (1.0, [self.parallel.spatial]),
            (0.7, [self.down.first]),
            (0.45, [self.down.second, self.down.shortcut, self.separable.depthwise]),
            (0.55, [self.separable.pointwise]),
        ]
        return [Coupled(weight, [unit.bn for unit in group]) for weight, group in units]


class Split(NamedTuple):
    """Images float32 [n, 1, 8, 8] in 0..1 and labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def pick(self, rows: np.ndarray | Tensor) -> Split:
        return Split(self.images[rows], self.labels[rows])


def load_splits(seed: int) -> tuple[Split, Split]:
    """The training and the held-out part (70 % and 30 %, the same mix of digits in both)."""
    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    train_rows, test_rows = train_test_split(
        np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=seed
    )
    whole = Split(torch.from_numpy(images), torch.from_numpy(labels))
    return whole.pick(train_rows), whole.pick(test_rows)


def batches(data: Split, generator: torch.Generator) -> Iterator[Split]:
    """One epoch in random order; each batch is shifted by up to one pixel each way."""
    order = torch.randperm(len(data.labels), generator=generator)
    for start in range(0, len(order) - BATCH + 1, BATCH):
        top, left = torch.randint(3, (2,), generator=generator).tolist()
        images, labels = data.pick(order[start : start + BATCH])
        padded = functional.pad(images, (1, 1, 1, 1))
        yield Split(padded[..., top : top + 8, left : left + 8], labels)


@torch.no_grad()
def shrink_channels(groups: list[Coupled], step: float) -> None:
    """Proximal step of the group lasso `step * weight * sqrt(size) * |v|`.

    `v` holds the scales and shifts of one coupled channel and has `size` entries.
    """
    for weight, norms in groups:
        vectors = torch.stack([row for bn in norms for row in (bn.weight, bn.bias)])
        threshold = step * weight * len(vectors) ** 0.5
        factor = (1 - threshold / vectors.norm(dim=0).clamp_min(1e-12)).clamp_min(0)
        for bn in norms:
            bn.weight.mul_(factor)
            bn.bias.mul_(factor)


@torch.no_grad()
def shrink_kernels(kernels: list[nn.Parameter], step: float) -> None:
    """Proximal step of the lasso: weights that no longer matter to the loss end at zero."""
    for kernel in kernels:
        kernel.copy_(functional.softshrink(kernel, step))


def train(data: Split, epochs: int, sparsity: float, seed: int) -> DigitNet:
    """Train for `epochs` epochs with group lasso strength `sparsity`; returns it in eval mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = DigitNet()
    groups = net.coupled()
    kernels = [parameter for parameter in net.parameters() if parameter.ndim > 1]
    optimizer = torch.optim.SGD(net.parameters(), lr=PEAK_RATE, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PEAK_RATE,
        total_steps=epochs * (len(data.labels) // BATCH),
        cycle_momentum=False,
    )
    for _ in range(epochs):
        for images, labels in batches(data, generator):
            loss = functional.cross_entropy(net(images), labels, label_smoothing=LABEL_SMOOTHING)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            rate = float(schedule.get_last_lr()[0])
            shrink_channels(groups, rate * sparsity)
            shrink_kernels(kernels, rate * KERNEL_LASSO)
            schedule.step()
    return net.eval()


def unshare(graph: onnx.GraphProto) -> None:
    """Store each parameter under its own name: the exporter keeps one of equals, and Identity.

    The shifts of two summed BatchNorms are always equal: they get the same gradients.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Identity"]:
        own = graph.initializer.add()
        own.CopyFrom(stored[node.input[0]])
        own.name = node.output[0]
        graph.node.remove(node)


def export(net: DigitNet, path: Path) -> None:
    """Write the network with its BatchNorms and its `state_dict` names, batch size open."""
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 8, 8),),
        path,
        dynamo=False,  # this exporter alone keeps BatchNorm and leaves no shape arithmetic
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
    )
    model = onnx.load(path)
    unshare(model.graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def accuracy(logits: np.ndarray, labels: Tensor) -> float:
    """Fraction of rows of `logits` [n, 10] whose largest entry is at the label."""
    return float((logits.argmax(axis=1) == labels.numpy()).mean())


def vanished(group: Coupled) -> int:
    """The number of coupled channels with neither scale nor shift."""
    rows = torch.stack([row for bn in group.norms for row in (bn.weight, bn.bias)])
    return int((rows == 0).all(dim=0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the example classifier of `make demo`.")
    root = Path(__file__).resolve().parent.parent
    parser.add_argument("--out", type=Path, default=root / "examples", help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--sparsity", type=float, default=0.04, help="group lasso strength")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)

    train_part, test = load_splits(options.seed)
    net = train(train_part, options.epochs, options.sparsity, options.seed)
    with torch.no_grad():
        expected = net(test.images).numpy()

    options.out.mkdir(parents=True, exist_ok=True)
    model, data = options.out / "digits.onnx", options.out / "digits_test.npz"
    export(net, model)
    np.savez_compressed(data, input=test.images.numpy(), label=test.labels.numpy())

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": test.images.numpy()})
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())

    for path in (model, data):
        print(f"{path.name}: {path.stat().st_size} bytes")
    groups = net.coupled()
    counts = [f"{vanished(group)}/{group.norms[0].num_features}" for group in groups]
    print(f"parameters: {sum(parameter.numel() for parameter in net.parameters())}")
    print(f"channels that vanished, by coupled group: {', '.join(counts)}")
    print(f"held-out accuracy: {accuracy(expected, test.labels):.4f} torch, ", end="")
    print(f"{accuracy(logits, test.labels):.4f} onnxruntime, relative difference {error:.1e}")
    if error > TOLERANCE:
        raise SystemExit(f"{model}: onnxruntime and torch differ by {error:.1e}")


if __name__ == "__main__":
    main()

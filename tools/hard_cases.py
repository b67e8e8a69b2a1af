"""Small torch networks on which structured pruners go wrong, each with one trap.

    python tools/hard_cases.py DIR        # writes DIR/NAME.onnx for every case

`CASES` maps a name to a `Case`: how to build the network and which input it takes. Every network
ends in a Linear called ``head``, which a comparison may protect.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir
import torch
from onnx_ir.passes.common import DeduplicateInitializersPass
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A network, its input shape (N, C, H, W) and how it becomes ONNX."""

    factory: Callable[[], nn.Module]
    shape: tuple[int, ...]
    merge_initializers: bool = False  # equal initializers become one, as optimisers do
    optimize: bool = True  # False keeps BatchNorm nodes and zero biases

    def build(self, seed: int = 0) -> nn.Module:
        """The network in eval mode with seeded weights and BatchNorm statistics."""
        torch.manual_seed(seed)
        network = self.factory()
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
            elif isinstance(layer, _BatchNorm):
                assert layer.running_mean is not None and layer.running_var is not None
                _randomise_norm(layer.weight, layer.bias, layer.running_mean, layer.running_var)
        return network.eval()

    def example(self, seed: int = 0) -> Tensor:
        """A standard normal input, float32 (N, C, H, W)."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))

    def export(self, path: Path, seed: int = 0) -> None:
        """Write the network to `path` with static shapes, ``input`` to ``output``."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter announces its own deprecations
            torch.onnx.export(
                self.build(seed), (self.example(seed),), path, dynamo=True, verbose=False,
                external_data=False, optimize=self.optimize,
                input_names=["input"], output_names=["output"],
            )  # fmt: skip
        if self.merge_initializers:
            model = onnx_ir.load(path)
            DeduplicateInitializersPass()(model)
            onnx_ir.save(model, path)


CASES: dict[str, Case] = {}


def case(
    name: str, *shape: int, merge_initializers: bool = False, optimize: bool = True
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: register the network in `CASES` as `name` with its input shape."""

    def register(network: type[nn.Module]) -> type[nn.Module]:
        if name in CASES:
            raise ValueError(f"case {name} is registered twice")
        CASES[name] = Case(network, shape, merge_initializers, optimize)
        return network

    return register


@torch.no_grad()
def _randomise_norm(scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor) -> None:
    """Fill BatchNorm parameters and statistics, each (C,), with values of realistic size."""
    scale.uniform_(0.5, 1.5)
    shift.normal_(0, 0.3)
    mean.normal_(0, 0.3)
    var.uniform_(0.3, 1.2)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Conv2d that keeps H and W at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


def conv_norm(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    """Conv2d without bias, BatchNorm, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Headed(nn.Module):
    """Base of all cases: global average pooling of `features`, then the linear head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """Image (N, C, H, W) to feature map (N, width, H', W')."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


class Flattened(Headed):
    """Base of the cases whose head reads a flattened feature map."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


@case("flatten_linear", 1, 3, 8, 8)
class FlattenLinear(Flattened):
    """(C, H, W) flattened: a channel is H*W adjacent columns of the head."""

    def __init__(self) -> None:
        super().__init__(12 * 4 * 4)
        self.a, self.b = conv(3, 8), conv(8, 12, stride=2)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x).relu()).relu()
        return out


@case("permute_flatten", 1, 3, 8, 8)
class PermuteFlatten(FlattenLinear):
    """(H, W, C) flattened: a channel is every C-th column of the head."""

    def features(self, x: Tensor) -> Tensor:
        return super().features(x).permute(0, 2, 3, 1)


@case("channel_shuffle", 1, 3, 8, 8)
class ChannelShuffle(Headed):
    """ShuffleNet: grouped convolutions with a transpose of (groups, C / groups) between them."""

    def __init__(self) -> None:
        super().__init__(24)
        self.stem, self.a = conv_norm(3, 24), conv_norm(24, 24, 1, groups=3)
        self.b = conv_norm(24, 24, 3, groups=3)

    def features(self, x: Tensor) -> Tensor:
        x = self.a(self.stem(x))
        n, c, h, w = x.shape
        out: Tensor = self.b(x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w))
        return out


@case("shuffle_split", 1, 3, 8, 8)
class ShuffleSplit(Headed):
    """ShuffleNet v2: half the channels pass by, then both halves interleave."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.out = conv_norm(3, 16), conv_norm(16, 16, 1)
        self.branch = nn.Sequential(conv_norm(8, 8, 1), conv_norm(8, 8, 3, groups=8))

    def features(self, x: Tensor) -> Tensor:
        kept, worked = self.stem(x).chunk(2, 1)
        x = torch.cat([kept, self.branch(worked)], 1)
        n, c, h, w = x.shape
        out: Tensor = self.out(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))
        return out


@case("concat_twice", 1, 3, 8, 8)
class ConcatTwice(Headed):
    """The same channels stand twice on the consumer's input axis."""

    def __init__(self) -> None:
        super().__init__(16)
        self.a, self.b = conv(3, 12), conv(24, 16)

    def features(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        out: Tensor = self.b(torch.cat([x, x], 1)).relu()
        return out


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv_norm(width, width), conv_norm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.b(self.a(x))
        return out


@case("c2f", 1, 3, 8, 8)
class C2f(Headed):
    """YOLOv8's block: chunk, a chain of bottlenecks, concatenation of every stage."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.enter = conv_norm(3, 16), conv_norm(16, 16, 1)
        self.blocks = nn.ModuleList(Bottleneck(8) for _ in range(2))
        self.leave = conv_norm(32, 16, 1)

    def features(self, x: Tensor) -> Tensor:
        parts = list(self.enter(self.stem(x)).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        out: Tensor = self.leave(torch.cat(parts, 1))
        return out


@case("grouped_conv_transpose", 1, 3, 8, 8)
class GroupedConvTranspose(Headed):
    """Weight (C_in, C_out / groups, kH, kW): the producer axis is the second and is per group."""

    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b = conv(3, 16), conv(24, 12)
        self.up = nn.ConvTranspose2d(16, 24, 4, stride=2, padding=1, groups=4)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.up(self.a(x).relu()).relu()).relu()
        return out


@case("pixel_shuffle", 1, 3, 8, 8)
class PixelShuffle(Headed):
    """Four producer channels make one consumer channel and go together."""

    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b, self.c = conv(3, 16), conv(16, 32), conv(8, 12)

    def features(self, x: Tensor) -> Tensor:
        x = functional.pixel_shuffle(self.b(self.a(x).relu()), 2)
        out: Tensor = self.c(x.relu()).relu()
        return out


@case("shared_zero_bias", 1, 3, 8, 8, merge_initializers=True, optimize=False)
class SharedZeroBias(Headed):
    """Unrelated layers of equal width whose zero biases were merged into one initializer."""

    def __init__(self) -> None:
        super().__init__(16)
        self.a, self.b, self.c = conv(3, 16), conv(16, 16), conv(16, 16)
        for layer in (self.a, self.b, self.c):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.b(self.a(x).relu()).relu()).relu()
        return out


@case("functional_conv", 1, 3, 8, 8)
class FunctionalConv(Headed):
    """Convolutions without modules: one weight is a parameter, one a buffer."""

    second: Tensor

    def __init__(self) -> None:
        super().__init__(12)
        self.first = nn.Parameter(torch.randn(16, 3, 3, 3) * (2 / 27) ** 0.5)
        self.register_buffer("second", torch.randn(16, 16, 3, 3) * (2 / 144) ** 0.5)
        self.third = conv(16, 12)

    def features(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.first, padding=1).relu()
        x = functional.conv2d(x, self.second, padding=1).relu()
        out: Tensor = self.third(x).relu()
        return out


@case("functional_norm", 1, 3, 8, 8, optimize=False)
class FunctionalNorm(Headed):
    """F.batch_norm on loose parameters and buffers, kept as a BatchNormalization node."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b = conv(3, 16), conv(16, 12)
        self.scale = nn.Parameter(torch.empty(16))
        self.shift = nn.Parameter(torch.empty(16))
        self.register_buffer("running_mean", torch.empty(16))
        self.register_buffer("running_var", torch.empty(16))
        _randomise_norm(self.scale, self.shift, self.running_mean, self.running_var)

    def features(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        x = functional.batch_norm(self.a(x), *statistics, self.scale, self.shift)
        out: Tensor = self.b(x.relu()).relu()
        return out


@case("se_residual", 1, 3, 8, 8)
class SqueezeExciteResidual(Headed):
    """A residual whose branch is gated per channel by two 1x1 convolutions."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.a, self.b = conv_norm(3, 16), conv_norm(16, 24), conv_norm(24, 16)
        self.squeeze, self.excite = conv(16, 6, 1), conv(6, 16, 1)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        branch = self.b(self.a(x))
        gate = self.excite(self.squeeze(branch.mean((2, 3), keepdim=True)).relu()).sigmoid()
        out: Tensor = (x + gate * branch).relu()
        return out


@case("depthwise_separable", 1, 3, 8, 8)
class DepthwiseSeparable(Headed):
    """Depthwise convolutions with multipliers one and two."""

    def __init__(self) -> None:
        super().__init__(12)
        self.stem, self.point, self.out = conv_norm(3, 16), conv_norm(16, 12, 1), conv(24, 12, 1)
        self.once, self.twice = conv_norm(16, 16, groups=16), conv_norm(12, 24, groups=12)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.twice(self.point(self.once(self.stem(x))))).relu()
        return out


@case("unequal_split", 1, 3, 8, 8)
class UnequalSplit(Headed):
    """A split into 4, 10 and 6 channels with a consumer of its own for each part."""

    def __init__(self) -> None:
        super().__init__(20)
        self.stem = conv_norm(3, 20)
        self.parts = nn.ModuleList([conv(4, 8), conv(10, 8), conv(6, 4)])

    def features(self, x: Tensor) -> Tensor:
        parts = self.stem(x).split([4, 10, 6], 1)
        outputs = [layer(part) for layer, part in zip(self.parts, parts, strict=True)]
        return torch.cat(outputs, 1).relu()


@case("pinned_concat", 1, 3, 8, 8)
class PinnedConcat(Headed):
    """Channels of the input image between free channels on one axis."""

    def __init__(self) -> None:
        super().__init__(12)
        self.a, self.b, self.out = conv(3, 8), conv(3, 10, 5), conv(21, 12)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.cat([self.a(x).relu(), x, self.b(x).relu()], 1)).relu()
        return out


@case("pad_shortcut", 1, 3, 8, 8)
class PadShortcut(Headed):
    """ResNet's option A: the shortcut is strided and padded with zero channels."""

    def __init__(self) -> None:
        super().__init__(16)
        self.stem, self.a, self.b = conv_norm(3, 8), conv(8, 16, stride=2), conv_norm(16, 16)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        out: Tensor = (self.b(self.a(x).relu()) + shortcut).relu()
        return out


def export_cases(out_dir: Path, seed: int = 0) -> dict[str, Path]:
    """Write every case as ``out_dir/NAME.onnx``; returns the files by name."""
    out_dir.mkdir(parents=True, exist_ok=True)
    files = {name: out_dir / f"{name}.onnx" for name in CASES}
    for name, path in files.items():
        CASES[name].export(path, seed)
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for file in export_cases(Path(sys.argv[1])).values():
        print(file)

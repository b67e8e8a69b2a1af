"""Weights drawn anew: all that trains, as torch draws it, and nothing that is frozen."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import irprune
from irprune import IrpruneError, Model, to_torch
from irprune.backends.torch.training.fresh import draw_weights
from irprune.backends.torch.training.starts import starts

PRODUCT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4] x) => (float[N,3] y)
<float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {1,2,3}>
{ h = MatMul(x, w)
  y = Add(h, b) }
"""
SLOPES = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2,3,3] x) => (float[N,2,3,3] y)
<float[2,1,1] s = {7,9}>
{ y = PRelu(x, s) }
"""


class Scaled(nn.Module):
    """A layer, and a parameter that belongs to none."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.gain = nn.Parameter(torch.full((4,), 7.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.layer(x)


def drawn(model: Model, seed: int = 0) -> dict[str, Any]:
    model = irprune.run("normalize", model, verify=False).model
    module = to_torch(model)
    torch.manual_seed(seed)
    draw_weights(module, starts(model.ir.graph))
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def of_text(text: str) -> Model:
    return Model.from_proto(onnx.parser.parse_model(text))


def test_columns_are_drawn_like_rows() -> None:
    found, other = (drawn(of_text(PRODUCT), seed) for seed in (0, 1))
    assert set(found) == {"w", "b"}
    for name, numbers in found.items():
        assert np.abs(numbers).max() <= 0.5  # one over the root of four inputs
        assert not np.array_equal(numbers, other[name])


def test_slopes_start_alike() -> None:
    assert drawn(of_text(SLOPES))["s"].tolist() == [[[0.25]], [[0.25]]]


def test_what_is_frozen_stays() -> None:
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    net[0].requires_grad_(False)
    net[1].requires_grad_(False)
    net[3].bias.requires_grad_(False)
    for name in ("running_mean", "weight"):
        nn.init.constant_(getattr(net[1], name), 3)
    found = drawn(irprune.from_torch(net.eval(), (torch.zeros(2, 1, 4, 4),)))
    changed = {k for k, v in net.state_dict().items() if not np.array_equal(v.numpy(), found[k])}
    assert changed == {"3.weight"}


IMAGE, SEQUENCE, ROW = (2, 1, 6, 6), (2, 1, 6), (2, 4)
NUMBERED = {
    "one slope": (nn.Conv2d(1, 4, 3), nn.PReLU(), IMAGE),
    "slopes of images": (nn.Conv2d(1, 4, 3), nn.PReLU(4), IMAGE),
    "slopes of sequences": (nn.Conv1d(1, 4, 3), nn.PReLU(4), SEQUENCE),
    "slopes of rows": (nn.Linear(4, 4), nn.PReLU(4), ROW),
    "groups": (nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), IMAGE),
    "groups of rows": (nn.Linear(4, 4), nn.GroupNorm(2, 4), ROW),
    "instances": (nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True), IMAGE),
    "layers": (nn.Linear(4, 4), nn.LayerNorm(4), ROW),
    "layers of images": (nn.Conv2d(1, 4, 3), nn.LayerNorm((4, 4, 4)), IMAGE),
    "root mean squares": (nn.Linear(4, 4), nn.RMSNorm(4), ROW),
}


@pytest.mark.parametrize("case", NUMBERED.values(), ids=NUMBERED.keys())
def test_norms_and_slopes_start_as_torch_has_them(
    case: tuple[nn.Module, nn.Module, tuple[int, ...]],
) -> None:
    """However they are exported: as a layer, with reshaped slopes, as several nodes."""
    first, second, shape = case
    wanted = {name: tensor.detach().numpy().copy() for name, tensor in second.named_parameters()}
    net = copy.deepcopy(nn.Sequential(first, second)).eval()
    for parameter in net[1].parameters():
        nn.init.constant_(parameter, 3)
    found = drawn(irprune.from_torch(net, (torch.randn(shape),)))
    for name, numbers in wanted.items():
        assert np.array_equal(found[f"1.{name}"], numbers)


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.LayerNorm(4), nn.RMSNorm(4)])
def test_a_weight_that_no_layer_draws_is_named(layer: nn.Module) -> None:
    """A scale behind a norm that has its own is no norm's."""
    model = irprune.from_torch(Scaled(layer).eval(), (torch.zeros(2, 4),))
    with pytest.raises(IrpruneError, match='draw gain anew; .*weights = "given"'):
        drawn(model)

"""Attention that is no standard layer, shrunk in place: by its attributes, or in windows."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_nets import randomised, run_graph
from torch_windows import ShiftedWindowAttention

from irprune import IrpruneError, api, apply_to_module, export_state_dict, from_torch

PRUNE = "normalize, prune{ratio=0.4 scope=local %s}, compact"


class Headed(nn.Module):
    """Attention that states its heads, as timm's does; torch scales by the width that it finds."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim, self.scale = 4, 6, 24, 6**-0.5
        self.fused_attn = fused
        self.qkv = nn.Linear(16, 72)
        self.proj = nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        parts = self.qkv(x).reshape(n, length, 3, self.num_heads, self.head_dim)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        if self.fused_attn:
            x = functional.scaled_dot_product_attention(q, k, v)
        else:
            x = (q * self.scale @ k.mT).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(n, length, self.attn_dim))


def shrunk(module: nn.Module, x: Tensor, options: str) -> nn.Module:
    """Return a shrunk copy of a module that computes what the compacted graph computes."""
    result = api.run(PRUNE % options, from_torch(module, (x,)))
    small = apply_to_module(copy.deepcopy(module), result.plan, (x,))
    with torch.no_grad():
        actual, expected = small.eval()(x).numpy(), run_graph(result.model, x)
    assert float(np.abs(actual - expected).max()) < 1e-5 * float(np.abs(expected).max())
    for name, tensor in export_state_dict(result).items():
        torch.testing.assert_close(small.state_dict()[name], tensor, rtol=0, atol=0)
    return small


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("options", "heads", "width"), [("heads=inner", 4, 4), ("heads=whole", 3, 6)]
)
def test_stated_heads_follow(fused: bool, options: str, heads: int, width: int) -> None:
    x = torch.randn(2, 5, 16)
    (attention,) = shrunk(randomised(nn.Sequential(Headed(fused))), x, options)
    assert (attention.num_heads, attention.head_dim) == (heads, width)
    assert attention.attn_dim == attention.proj.in_features == heads * width
    assert attention.scale == 6**-0.5
    assert attention.fused_attn == (fused and width == 6)
    assert type(attention) is Headed


def test_stated_heads_need_example_inputs() -> None:
    module, x = nn.Sequential(Headed()), torch.randn(2, 5, 16)
    result = api.run(PRUNE % "", from_torch(module, (x,)), verify=False)
    with pytest.raises(IrpruneError, match=r"0 \(Headed\): .* attribute num_heads.*example args"):
        apply_to_module(module, result.plan)


def test_heads_of_different_widths_are_refused() -> None:
    module, x = nn.Sequential(Headed()), torch.randn(2, 5, 16)
    result = api.run(PRUNE % "", from_torch(module, (x,)), verify=False)
    mask = result.plan.axes["0.qkv.weight"][0]
    mask[:6], mask[24:30] = True, True
    with pytest.raises(IrpruneError, match=r"0 \(Headed\): its forward does not fit"):
        apply_to_module(module, result.plan, (x,))
    assert module[0].qkv.out_features == 72


@pytest.mark.parametrize("cosines", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("heads", ["inner", "whole"])
def test_windows_shrink(cosines: bool, shift: int, heads: str) -> None:
    """Of cosines, only whole heads may go."""
    torch.manual_seed(0)
    size = (5, 4) if heads == "inner" else (2, 3)
    layers = [nn.Linear(3, 12), ShiftedWindowAttention(shift, cosines), nn.Linear(12, 5)]
    x = torch.randn(2, *size, 3)
    small = shrunk(randomised(nn.Sequential(*layers)), x, f"heads={heads}")
    attention = small[1]
    assert isinstance(attention, ShiftedWindowAttention)
    assert len(attention.qkv.weight) < 36
    assert attention.num_heads == (3 if heads == "inner" and not cosines else 2)
    small.train()(x).sum().backward()
    again = copy.deepcopy(small).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x), small.eval()(x))
    shrunk(again, x, f"heads={heads}")


def test_windows_are_known_without_example_inputs() -> None:
    module, x = nn.Sequential(ShiftedWindowAttention()), torch.randn(2, 4, 4, 12)
    result = api.run(PRUNE % "", from_torch(module, (x,)), verify=False)
    apply_to_module(module, result.plan)
    assert module[0].widths == (3, 3)

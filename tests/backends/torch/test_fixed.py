"""Whether a network takes any batch: what is rounding, and what is more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from irprune.backends.torch.training.fixed import check_any_batch
from irprune.errors import IrpruneError


class _Rounding(nn.Module):
    """A layer whose results differ by some 0.4 % between one example and several."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4, dtype=kind)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.to(self.layer.weight.dtype)).float()
        return out * (1 + 2**-8) if len(x) > 1 else out


def test_one_step_of_a_half_type_is_no_other_result() -> None:
    check_any_batch(_Rounding(torch.bfloat16), (6,), 4, None)
    with pytest.raises(IrpruneError, match="^examples of a batch of 3 are mixed up"):
        check_any_batch(_Rounding(torch.float32), (6,), 4, None)


class _Large(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_runs_out_is_no_fixed_batch() -> None:
    with pytest.raises(IrpruneError, match="^3 examples do not fit into memory"):
        check_any_batch(_Large(), (6,), 4, 2)

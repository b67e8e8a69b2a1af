"""The same numbers every time, on a GPU too: what exact resume stands on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.utils import deterministic

from irprune.recipe import Machine

_memory: Any = deterministic
"""A module whose attribute is a property, which type checkers do not see."""


@contextmanager
def repeatable(machine: Machine, fabric: Fabric) -> Iterator[None]:
    """Have CUDA take kernels that add up in the same order every time; CPUs do so by themselves.

    Where an operation has no such kernel, torch warns and goes on.
    """
    if fabric.device.type != "cuda" or not machine.deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS takes it at its first call
    enabled = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    filled, raced = _memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    _memory.fill_uninitialized_memory = False  # nothing here reads what it did not write
    torch.backends.cudnn.benchmark = False  # a race of kernels has other winners next time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warned)
        _memory.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = raced

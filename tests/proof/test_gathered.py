"""Inexact ops in the masked reference: what it computes, what it refuses, what the proof notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest
from mutations import numbers, store, swapped
from norm_nets import NormNet
from onnx import TensorProto
from strategies import Net, compacted, feeds_of, proto_of, random_keep, run

from irprune.backends.ort.runner import OrtRunner
from irprune.channels import analyse
from irprune.errors import IrpruneError
from irprune.model import Model
from irprune.passbase import Context
from irprune.plan import Mask, Plan
from irprune.proof import agreement
from irprune.proof.prover import prove
from irprune.proof.reference import masked_reference

Array = npt.NDArray[np.float32]

KEPT = np.array([True, False, True, True, False, True])
SCALE, BIAS = np.arange(1, 7, dtype=np.float32), np.arange(6, dtype=np.float32)


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    with OrtRunner() as runner:
        yield Context(runner=lambda: runner)


def _normal(x: Array, axis: int) -> Array:
    centred = x - x.mean(axis, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(axis, keepdims=True) + 1e-5)
    return result


def _softmax(x: Array, axis: int) -> Array:
    powers = np.exp(x)
    result: Array = powers / powers.sum(axis, keepdims=True)
    return result


def _neighbours(x: Array) -> Array:
    padded = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    total = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    result: Array = x / (1 + 0.5 / 3 * total) ** 0.75
    return result


def _grouped(x: Array, scale: Array, bias: Array) -> Array:
    rows = _normal(x.reshape(len(x), 2, -1), 2).reshape(x.shape)
    result: Array = rows * scale.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    return result


Case = tuple[str, int, dict[str, int], list[Array], Callable[..., Array]]

KINDS: list[Case] = [
    ("LayerNormalization", 17, {"axis": -3}, [], lambda x, s, b: None),
]

"""What a pruner kept, found from the weights alone, and the original with the rest masked.

A pruned weight is the original at some rows and columns. Where these can be found again, exactly,
zeroing the original's other *input* channels gives the function that the pruned network must
compute, whichever tool made it. A weight is grouped along its first axis (Conv: output channels,
ConvTranspose: input channels), as ONNX and torch store it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

Array = NDArray[np.float32]
Indices = NDArray[np.intp]
KEYS = 4
"""Rows or columns that identify a position together; a single float may occur twice."""
CONTRACTIONS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""Inputs that may be weights."""


class Underivable(Exception):
    """The pruned weight is no sub-block of the original: what was kept cannot be told."""


def masked_weight(
    name: str, full: Array, pruned: Array, *, transposed: bool, groups: int, pruned_groups: int
) -> Array:
    """The original weight with the input channels zeroed that the pruned one lacks.

    Args:
        name: for the message of Underivable.
        full: original weight, shape (rows, columns, ...).
        pruned: pruned weight, the same rank.
        transposed: input channels stand on the first axis (ConvTranspose), not on the second.
        groups: groups of the first axis of `full`.
        pruned_groups: groups of the first axis of `pruned`.
    """
    if full.shape == pruned.shape and np.array_equal(full, pruned):
        return full
    if full.ndim != pruned.ndim or full.shape[2:] != pruned.shape[2:]:
        raise Underivable(f"{name}: shape {pruned.shape} from {full.shape}")
    masked = np.zeros_like(full)
    size = len(full) // groups
    for block in np.split(pruned, pruned_groups):
        rows, columns = _block(name, full, block)
        if transposed:
            masked[rows] = full[rows]
            continue
        if len(np.unique(rows // size)) != 1:
            raise Underivable(f"{name}: a group of the pruned weight mixes groups of the original")
        start = rows[0] // size * size
        masked[start : start + size, columns] = full[start : start + size, columns]
    return masked


def _block(name: str, full: Array, block: Array) -> tuple[Indices, Indices]:
    """Rows and columns of `full` at which `block` stands, both as index arrays."""
    full = full.reshape(*full.shape[:2], -1)
    block = block.reshape(*block.shape[:2], -1)
    for row in np.unique(np.nonzero((full == block[0, 0]).all(-1))[0]):
        columns = _find(full[row], block[0])
        if columns is None:
            continue
        rows = _find(full[:, columns[:KEYS]], block[:, :KEYS])
        if rows is None:
            continue
        columns = _find(full[rows[:KEYS]].swapaxes(0, 1), block[:KEYS].swapaxes(0, 1))
        if columns is not None and np.array_equal(full[np.ix_(rows, columns)], block):
            return rows, columns
    raise Underivable(f"{name}: surviving values are not those of the original")


def _find(full: Array, wanted: Array) -> Indices | None:
    """Positions on the first axis of `full` that equal `wanted`; None if one is missing."""
    places = {item.tobytes(): position for position, item in enumerate(full)}
    found = [places.get(item.tobytes()) for item in wanted]
    return None if None in found else np.array(found, dtype=np.intp)


def onnx_weights(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int, str]]:
    """Every (node, input position, initializer) where a contraction reads a weight."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        for position in CONTRACTIONS.get(node.op_type, ()):
            if node.input[position] in constants:
                yield node, position, node.input[position]


def weight_elements(model: onnx.ModelProto) -> int:
    """Elements of the initializers that feed Conv, ConvTranspose, Gemm and MatMul, each once."""
    names = {name for _, _, name in onnx_weights(model)}
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.name in names)


def masked_onnx(original: onnx.ModelProto, pruned: onnx.ModelProto) -> onnx.ModelProto:
    """The original with input channels zeroed that `pruned` lacks; raises Underivable.

    Weights are matched by the name of the initializer.
    """
    survivors = {tensor.name: tensor for tensor in pruned.graph.initializer}
    groups = {name: _groups(node) for node, _, name in onnx_weights(pruned)}
    weights = {name: (node, position) for node, position, name in onnx_weights(original)}
    masked = onnx.ModelProto()
    masked.CopyFrom(original)
    for tensor in masked.graph.initializer:
        if tensor.name not in weights:
            continue
        if tensor.name not in groups:
            raise Underivable(f"{tensor.name}: the pruned model has no weight of that name")
        node, position = weights[tensor.name]
        # Columns are inputs for Conv and transposed Gemm; a plain matrix is read transposed.
        flip = node.op_type in ("Gemm", "MatMul") and position == _attribute(node, "transB", 0) ^ 1
        full, kept = (numpy_helper.to_array(t) for t in (tensor, survivors[tensor.name]))
        if flip:
            full, kept = np.ascontiguousarray(full.T), np.ascontiguousarray(kept.T)
        array = masked_weight(
            tensor.name, full, kept, transposed=node.op_type == "ConvTranspose",
            groups=_groups(node), pruned_groups=groups[tensor.name],
        )  # fmt: skip
        array = np.ascontiguousarray(array.T if flip else array)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return masked


def _groups(node: onnx.NodeProto) -> int:
    return _attribute(node, "group", 1)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


@torch.no_grad()
def masked_torch(original: nn.Module, pruned: nn.Module) -> nn.Module:
    """A copy of `original` with input channels zeroed that `pruned` lacks; raises Underivable.

    Weights are matched by name: those of layers and loose parameters or buffers alike.
    """
    masked = copy.deepcopy(original)
    layers, survivors = dict(pruned.named_modules()), pruned.state_dict()
    for name, tensor in masked.state_dict().items():
        if tensor.ndim < 2:
            continue
        layer = masked.get_submodule(name.rpartition(".")[0])
        twin = layers[name.rpartition(".")[0]]
        array = masked_weight(
            name, tensor.numpy(), survivors[name].numpy(),
            transposed=isinstance(layer, nn.ConvTranspose2d),
            groups=getattr(layer, "groups", 1), pruned_groups=getattr(twin, "groups", 1),
        )  # fmt: skip
        tensor.copy_(torch.from_numpy(array.copy()))
    return masked

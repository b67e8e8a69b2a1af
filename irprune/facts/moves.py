"""Ops that move positions: joined, cut, picked, reshaped, permuted, repeated, padded."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from irprune.facts.domain import MOST_SLICES, Array, Facts
from irprune.facts.flow import constants, identity
from irprune.ops.pad import pads_of
from irprune.ops.reshape import segments
from irprune.ops.slice import slices_of
from irprune.queries import Dim, constant_of

if TYPE_CHECKING:
    from irprune.facts.flow import Flow, Transfer


def _data(node: ir.Node) -> ir.Value:
    data = node.inputs[0]
    assert data is not None
    return data


def concat(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """The inputs one after another."""
    values = [value for value in node.inputs if value is not None]
    axis = node.attributes.get_int("axis", 1) % len(flow.dims(node.outputs[0]))
    return [_joined([(flow.of(value), flow.dims(value)) for value in values], axis)]


def _joined(operands: Sequence[tuple[Facts, list[Dim]]], axis: int) -> Facts | None:
    """Return facts joined along an axis; other axes are tracked in all or in none."""
    rank = len(operands[0][1])
    tracked = {k for k in range(rank) if k == axis or any(f.tracked(k) for f, _ in operands)}
    parts = []
    for facts, dims in operands:
        lengths = {k: d for k in tracked if isinstance(d := dims[k], int)}
        if len(lengths) < len(tracked) or prod(lengths.values()) > MOST_SLICES:
            return None
        parts.append(facts.stretched(lengths))
    return Facts(
        np.concatenate([facts.known for facts in parts], axis),
        np.concatenate([facts.const for facts in parts], axis),
        np.concatenate([facts.number for facts in parts], axis),
    )


def split(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Consecutive parts of one axis."""
    facts, rank = flow.of(_data(node)), len(flow.dims(_data(node)))
    axis = node.attributes.get_int("axis", 0) % rank
    lengths = [flow.dims(output)[axis] for output in node.outputs]
    sizes = [n for n in lengths if isinstance(n, int)]
    if len(sizes) < len(lengths):
        return []
    starts = np.cumsum([0, *sizes])
    result: list[Facts | None] = []
    for start, size in zip(starts, sizes, strict=False):
        if facts.tracked(axis):
            result.append(facts.taken(np.arange(start, start + size), axis))
        else:
            result.append(facts.through(*identity(node, facts, int(start), size)))
    return result


def slice_(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Constant starts, ends and steps."""
    facts, dims = flow.of(_data(node)), flow.dims(_data(node))
    slices = slices_of(node, len(dims))
    if slices is None:
        return [None]
    rest = {k: part for k, part in slices.items() if not facts.tracked(k)}
    for k, part in slices.items():
        if facts.tracked(k):
            facts = facts.taken(np.arange(facts.shape[k])[part], k)
    if rest:
        facts = facts.through(*identity(node, facts, sorted(map(str, rest.items()))))
    return [facts]


def gather(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Constant indices of any rank along one axis."""
    facts, indices = flow.of(_data(node)), constant_of(node.inputs[1])
    if indices is None:
        return [None]
    axis = node.attributes.get_int("axis", 0) % len(facts.shape)
    if facts.tracked(axis):
        return [facts.taken(indices, axis)]
    shape = (*facts.shape[:axis], *[1] * indices.ndim, *facts.shape[axis + 1 :])
    facts = facts.reshaped(shape)
    return [facts.through(*identity(node, facts, indices.tolist()))]


def reshaped(facts: Facts, source: Sequence[Dim], target: Sequence[Dim]) -> Facts:
    """Return facts after a reshape; where tracked axes merge with others, all become tracked."""
    shape = [1] * len(target)
    for inner, outer in segments(source, target):
        if not any(facts.tracked(k) for k in inner):
            continue
        old = {k: d for k in inner if isinstance(d := source[k], int)}
        new = {k: d for k in outer if isinstance(d := target[k], int)}
        size = prod(facts.shape[k] for k in range(len(source)) if k not in inner)
        known = len(old) == len(inner) and len(new) == len(outer)
        if not known or size * prod(old.values()) > MOST_SLICES:
            facts = facts.collapsed(inner)
            continue
        facts = facts.stretched(old)
        for k, length in new.items():
            shape[k] = length
    return facts.reshaped(shape)


def reshape(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Reshape, Flatten, Squeeze and Unsqueeze: the same positions under other axes."""
    target = flow.dims(node.outputs[0])
    facts = reshaped(flow.of(_data(node)), flow.dims(_data(node)), target)
    if any(facts.shape[k] not in (1, d) for k, d in enumerate(target)):
        return [None]
    return [facts.through("reshape", *identity(node, facts)[-1:])]


def transpose(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """The axes in the order ``perm`` (reversed by default)."""
    facts = flow.of(_data(node))
    perm = node.attributes.get_ints("perm") or tuple(reversed(range(len(facts.shape))))
    facts = facts.transposed(perm)
    return [facts.through("transpose", perm)]


def _depths(node: ir.Node, flow: Flow) -> tuple[Facts, int, int] | None:
    """Return facts with only channels tracked, how many those are, and the block size squared."""
    dims = flow.dims(_data(node))
    if not isinstance(dims[1], int):
        return None
    facts = flow.of(_data(node)).along(1, dims[1])
    return facts, dims[1], node.attributes.get_int("blocksize", 1) ** 2


def depth_to_space(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """A channel of the output interleaves a block of channels."""
    found = _depths(node, flow)
    if found is None:
        return [None]
    facts, channels, block = found
    crd = node.attributes.get_string("mode", "DCR") == "CRD"
    shape = (channels // block, block) if crd else (block, channels // block)
    facts = facts.reshaped(shape).collapsed([1 if crd else 0]).reshaped((1, -1, 1, 1))
    return [facts.through(*identity(node, facts))]


def space_to_depth(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Each block position of a channel becomes a channel; the block position comes first."""
    found = _depths(node, flow)
    if found is None:
        return [None]
    facts, channels, block = found
    facts = facts.reshaped((1, channels)).stretched({0: block}).reshaped((1, -1, 1, 1))
    return [facts.through(*identity(node, facts))]


def expand(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Axes of one position are stretched."""
    facts = flow.of(_data(node)).raised(len(flow.dims(node.outputs[0])))
    return [facts.through(*identity(node, facts))]


def tile(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Each axis is repeated as a whole."""
    facts, repeats = flow.of(_data(node)), constant_of(node.inputs[1])
    if repeats is None:
        return [None]
    times = [int(n) if facts.tracked(k) else 1 for k, n in enumerate(repeats)]
    if facts.number.size * prod(times) > MOST_SLICES:
        return [None]
    return [facts.repeated(times).through("Tile", repeats.tolist(), times)]


def pad(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """Positions before and after each axis: one constant, or copies of inner ones."""
    facts, rank = flow.of(_data(node)), len(flow.dims(_data(node)))
    pads, more, filling = pads_of(node, rank), constants(node), _filling(node)
    if pads is None or more is None or filling is None:
        return [None]
    constant = node.attributes.get_string("mode", "constant") == "constant"
    if not constant:
        facts = facts.collapsed([k for k in range(rank) if pads[k] != (0, 0)])
    added = any(max(pads[k]) > 0 and not facts.tracked(k) for k in range(rank))
    keep = facts.const == filling if constant and added else True
    facts = facts.through(*identity(node, facts, *more), keep=keep)
    for k in range(rank):
        if facts.tracked(k) and pads[k] != (0, 0):
            facts = _padded(facts, k, *pads[k], filling.astype(facts.const.dtype))
    return [facts]


def _filling(node: ir.Node) -> Array | None:
    """Return the number that a constant pad adds, of rank 0; None where it is computed."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        found = constant_of(node.inputs[2])
        return None if found is None else found.reshape(())
    return np.asarray(node.attributes.get_float("value", 0.0))


def _padded(facts: Facts, axis: int, before: int, after: int, filling: Array) -> Facts:
    """Return facts with constants put before and after a tracked axis, or positions cut off."""
    length = facts.shape[axis]
    facts = facts.taken(np.arange(max(-before, 0), length - max(-after, 0)), axis)
    rank = len(facts.shape)
    added = Facts.of_array(filling.reshape((1,) * rank))
    dims: list[Dim] = list(facts.shape)
    operands = [
        *((added, [*dims[:axis], n, *dims[axis + 1 :]]) for n in (before,) if n > 0),
        (facts, dims),
        *((added, [*dims[:axis], n, *dims[axis + 1 :]]) for n in (after,) if n > 0),
    ]
    joined = _joined(operands, axis)
    assert joined is not None
    return joined


def constant_of_shape(node: ir.Node, flow: Flow) -> list[Facts | None]:
    """One number everywhere."""
    value = node.attributes.get("value")
    array = np.zeros(1, np.float32) if value is None else value.as_tensor().numpy()
    rank = len(flow.dims(node.outputs[0]))
    return [Facts.of_array(array.reshape(-1)[:1].reshape((1,) * rank))]


TRANSFERS: dict[str, Transfer] = {
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": reshape,
    "Gather": gather,
    "Pad": pad,
    "Reshape": reshape,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": reshape,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}

"""Conv and ConvTranspose: plain, grouped and depthwise, any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis, Labelled, Labels, Rows
from irprune.ops.rule import Contraction, Rule, Size

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


def _group(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _pin_spatial(node: ir.Node, walk: Walk, data: list[Axis], weight: list[Labelled]) -> None:
    for axis in (*data[2:], *weight[2:]):
        walk.pin(axis, "is a spatial axis of a convolution")


def _part_of_group(node: ir.Node, walk: Walk, per_group: Labels) -> None:
    """Label the weight's axis 1, which is a part of one group, per index of its axis 0.

    ``per_group`` has shape ``(groups, positions)``; axis 0 goes through the groups one after
    another. The tensors stay rectangular as long as every group loses equally many positions.
    """
    walk.balance(per_group)
    weight = node.inputs[1]
    length = walk.dims(weight)[0]
    assert isinstance(length, int)
    labels = np.repeat(per_group, length // len(per_group), axis=0)
    walk.label(weight, 1, per_group[0] if len(per_group) == 1 else Rows((0,), labels))


def _set_output(node: ir.Node, walk: Walk, batch: Axis, channels: Axis) -> None:
    output = node.outputs[0]
    spatial = [np.zeros(d, np.int64) if isinstance(d, int) else None for d in walk.dims(output)[2:]]
    walk.set(output, [batch, channels, *spatial])


def _depthwise(node: ir.Node) -> bool:
    """One channel of the data per group: channels pass through, nothing is summed over them."""
    data = node.inputs[0]
    assert data is not None and data.shape is not None
    return _group(node) > 1 and data.shape[1] == _group(node)


def _keep_groups(node: ir.Node, edit: Edit) -> None:
    """A depthwise convolution has as many groups as kept input channels."""
    data = node.inputs[0]
    if _depthwise(node) and data is not None and edit.kept(data, 1) is not None:
        edit.set_attribute(node, "group", edit.length(data, 1))


class Conv(Rule):
    """Y[n, m, ...] = sum over c, k of X[n, c, ... + k] W[m, c, k] + B[m]."""

    ops = ("Conv",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x, (made, used, *_) = walk.axes(node.inputs[0]), walk.dims(node.inputs[1])
        if x[1] is None or not isinstance(made, int) or not isinstance(used, int):
            walk.pin_node(node, "the number of channels is dynamic")
            return
        groups = _group(node)
        if not _depthwise(node):
            _part_of_group(node, walk, x[1].reshape(groups, -1))
        w = walk.rows(node.inputs[1])
        filters = walk.tied(w[0])
        assert filters is not None
        _pin_spatial(node, walk, x, w)
        if _depthwise(node):
            walk.unify(np.repeat(x[1], made // groups), filters)
            walk.pin(w[1], "is the single input channel of a depthwise filter")
        else:
            walk.balance(filters.reshape(groups, -1))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            walk.unify(walk.axes(node.inputs[2])[0], filters)
        _set_output(node, walk, x[0], filters)

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        return () if _depthwise(node) else ((1, 0),)

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        return () if _depthwise(node) else (Contraction(0, 1, 1, 1),)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        _keep_groups(node, edit)

    def macs(self, node: ir.Node, size: Size) -> int:
        weight, output = node.inputs[1], node.outputs[0]
        assert weight is not None and weight.shape is not None and output.shape is not None
        filters = prod(size(weight, k) for k in range(1, len(weight.shape)))
        return filters * prod(size(output, k) for k in range(len(output.shape)))


class ConvTranspose(Rule):
    """The transposed convolution: W is (C, M / group, kernel...)."""

    ops = ("ConvTranspose",)

    def propagate(self, node: ir.Node, walk: Walk) -> None:
        x, (used, made, *_) = walk.axes(node.inputs[0]), walk.dims(node.inputs[1])
        if x[1] is None or not isinstance(made, int) or not isinstance(used, int):
            walk.pin_node(node, "the number of channels is dynamic")
            return
        groups = _group(node)
        channels = walk.fresh(groups * made)
        if not _depthwise(node):
            _part_of_group(node, walk, channels.reshape(groups, -1))
        w = walk.rows(node.inputs[1])
        _pin_spatial(node, walk, x, w)
        walk.unify(x[1], w[0])
        if _depthwise(node):
            walk.pin(w[1], "is the channel multiplier of a depthwise filter")
            channels = np.repeat(x[1], made)
        else:
            walk.balance(x[1].reshape(groups, -1))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            walk.unify(walk.axes(node.inputs[2])[0], channels)
        _set_output(node, walk, x[0], channels)

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        return () if _depthwise(node) else ((1, 1),)

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        return () if _depthwise(node) else (Contraction(0, 1, 1, 0),)

    def rewrite(self, node: ir.Node, edit: Edit) -> None:
        _keep_groups(node, edit)

    def macs(self, node: ir.Node, size: Size) -> int:
        data, weight = node.inputs[0], node.inputs[1]
        assert data is not None and data.shape is not None
        assert weight is not None and weight.shape is not None
        per_position = prod(size(weight, k) for k in range(1, len(weight.shape)))
        return per_position * prod(size(data, k) for k in range(len(data.shape)))


RULES = (Conv(), ConvTranspose())

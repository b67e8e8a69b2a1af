"""Conv and ConvTranspose: plain, grouped and depthwise, any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from irprune.labels import Axis, Labelled, Labels, Rows
from irprune.ops.rule import Contraction, Rule, Size, Statistic

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.edit import Edit
    from irprune.walk import Walk


def _group(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def _spatial(node: ir.Node, walk: Walk, data: list[Axis], weight: list[Labelled]) -> list[Axis]:
    """Return the labels of the output's spatial axes: most of them stay.

    Where a filter has length 1, every position is filtered by itself, as along a batch axis. Where
    a filter slides over channels, each of them meets its neighbours, which is inexact.
    """
    reason = "is a spatial axis of a convolution"
    result: list[Axis] = []
    for k, dim in enumerate(walk.dims(node.outputs[0])[2:]):
        walk.pin(weight[k + 2], reason)
        if _pointwise(node, k):
            result.append(data[k + 2])
        elif _slides(node):
            walk.inexact(node, data[k + 2], "is filtered together with its neighbours")
            result.append(data[k + 2])
        else:
            walk.pin(data[k + 2], reason)
            result.append(np.zeros(dim, np.int64) if isinstance(dim, int) else None)
    return result


def _pointwise(node: ir.Node, k: int) -> bool:
    """Whether spatial axis ``k`` of the output is that of the data, position by position."""
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    pads = node.attributes.get_ints("pads") or ()
    added = node.attributes.get_ints("output_padding") or ()
    strides = node.attributes.get_ints("strides") or ()
    unpadded = not any((*pads[k :: len(weight.shape) - 2], *added[k : k + 1]))
    return weight.shape[k + 2] == 1 and set(strides[k : k + 1]) <= {1} and unpadded


def _slides(node: ir.Node) -> bool:
    """Whether one filter of one channel slides over places that may be channels themselves.

    Efficient channel attention (ECA) does so with the pooled channels. The data is (N, 1, places),
    and there are as many places after as before.
    """
    data, weight, output = node.inputs[0], node.inputs[1], node.outputs[0]
    assert data is not None and weight is not None
    if node.op_type != "Conv" or data.shape is None or output.shape is None or not weight.shape:
        return False
    single = len(weight.shape) == 3 and list(weight.shape[:2]) == [1, 1] and weight.shape[2] != 1
    same = isinstance(data.shape[-1], int) and data.shape[-1] == output.shape[-1]
    return single and same and set(node.attributes.get_ints("strides") or ()) <= {1}


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
        spatial = _spatial(node, walk, x, w)
        if _depthwise(node):
            walk.unify(np.repeat(x[1], made // groups), filters)
            walk.pin(w[1], "is the single input channel of a depthwise filter")
        else:
            walk.balance(filters.reshape(groups, -1))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            walk.unify(walk.axes(node.inputs[2])[0], filters)
        walk.set(node.outputs[0], [x[0], filters, *spatial])

    def producers(self, node: ir.Node) -> Sequence[tuple[int, int]]:
        return () if _depthwise(node) else ((1, 0),)

    def contractions(self, node: ir.Node) -> Sequence[Contraction]:
        return () if _depthwise(node) else (Contraction(0, 1, 1, 1),)

    def statistics(self, node: ir.Node) -> Sequence[Statistic]:
        return (Statistic(0, 2, results=((0, 2),)),) if _slides(node) else ()

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
        spatial = _spatial(node, walk, x, w)
        walk.unify(x[1], w[0])
        if _depthwise(node):
            walk.pin(w[1], "is the channel multiplier of a depthwise filter")
            channels = np.repeat(x[1], made)
        else:
            walk.balance(x[1].reshape(groups, -1))
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            walk.unify(walk.axes(node.inputs[2])[0], channels)
        walk.set(node.outputs[0], [x[0], channels, *spatial])

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

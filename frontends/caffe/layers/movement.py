"""Data that only moves: Concat, Slice, Split, Permute, ShuffleChannel, Tile, Crop, Filter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims


def concat(job: Job) -> Sequence[ir.Value]:
    job.need(1)
    param = job.field("concat_param")
    axis = job.axis(param.int("axis", param.int("concat_dim", 1)))
    return [
        job.bottoms[0] if len(job.bottoms) == 1 else job.node("Concat", *job.bottoms, axis=axis)
    ]


def slice_(job: Job) -> Sequence[ir.Value]:
    """Parts of an axis that end at the slice points; equal parts where there are none."""
    param = job.field("slice_param")
    axis = job.axis(param.int("axis", param.int("slice_dim", 1)))
    length, parts = dims(job.x)[axis], len(job.layer.tops)
    points = param.ints("slice_point")
    if not points and length % parts == 0:
        points = list(range(length // parts, length, length // parts))
    ends = [0, *points, length]
    sizes = [b - a for a, b in pairwise(ends)]
    if len(sizes) != parts or min(sizes) < 1:
        raise job.error(f"cannot slice {length} into {parts} parts at {points or 'equal points'}")
    if parts == 1:
        return [job.x]
    return job.nodes(parts, "Split", job.x, job.integers("sizes", sizes), axis=axis)


def split(job: Job) -> Sequence[ir.Value]:
    """The same blob under several names."""
    return [job.x] * len(job.layer.tops)


def permute(job: Job) -> Sequence[ir.Value]:
    """The axes in the order given; those that are left out follow."""
    rank = len(dims(job.x))
    order = job.field("permute_param").ints("order")
    if len({*order}) != len(order) or not all(0 <= axis < rank for axis in order):
        raise job.error(f"order {order} does not name axes of {list(dims(job.x))} once each")
    perm = [*order, *(axis for axis in range(rank) if axis not in order)]
    if perm == sorted(perm):
        return [job.x]
    return [job.node("Transpose", job.x, perm=perm)]


def shuffle_channel(job: Job) -> Sequence[ir.Value]:
    """Channel `i * (C / group) + j` goes to `j * group + i`."""
    group = job.field("shuffle_channel_param").int("group", 1)
    shape = dims(job.x)
    if group < 1 or len(shape) < 2 or shape[1] % group:
        raise job.error(f"cannot shuffle {list(shape)} in {group} groups")
    rest = shape[2:]
    split = job.reshape(job.x, [0, group, shape[1] // group, *rest], "split")
    perm = [0, 2, 1, *range(3, 3 + len(rest))]
    swapped = job.node("Transpose", split, what="swapped", perm=perm)
    return [job.reshape(swapped, [0, *shape[1:]])]


def tile(job: Job) -> Sequence[ir.Value]:
    param = job.field("tile_param")
    axis, tiles = job.axis(param.int("axis", 1)), param.need("tiles").int()
    if tiles < 1:
        raise job.error(f"tiles cannot be {tiles}")
    repeats = [tiles if k == axis else 1 for k in range(len(dims(job.x)))]
    return [job.node("Tile", job.x, job.integers("repeats", repeats))]


def crop(job: Job) -> Sequence[ir.Value]:
    """From `axis` on as long as the second bottom, from the offsets on."""
    job.need(2, 2)
    param = job.field("crop_param")
    shape, wanted = dims(job.x), dims(job.bottoms[1])
    first, offsets = job.axis(param.int("axis", 2)), param.ints("offset") or [0]
    axes = range(first, len(shape))
    if len(offsets) not in (1, len(axes)) or len(wanted) != len(shape):
        raise job.error(f"cannot crop {list(shape)} from axis {first} to {list(wanted)}")
    starts = offsets * len(axes) if len(offsets) == 1 else offsets
    ends = [start + wanted[axis] for start, axis in zip(starts, axes, strict=True)]
    for start, end, axis in zip(starts, ends, axes, strict=True):
        if start < 0 or end > shape[axis]:
            raise job.error(f"cannot crop axis {axis} of {list(shape)} to {start} up to {end}")
    return [cut(job, starts, ends, axes)]


def cut(
    job: Job, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], what: str = ""
) -> ir.Value:
    """The first bottom from `starts` up to `ends`; itself where that is all of it."""
    shape = dims(job.x)
    kept = [
        (start, end, axis)
        for start, end, axis in zip(starts, ends, axes, strict=True)
        if (start, end) != (0, shape[axis])
    ]
    if not kept:
        return job.x
    names = ("starts", "ends", "axes")
    bounds = [
        job.integers(n, column) for n, column in zip(names, zip(*kept, strict=True), strict=True)
    ]
    return job.node("Slice", job.x, *bounds, what=what)


def filter_(job: Job) -> Sequence[ir.Value]:
    """Some of the channels, as a channel-pruned model selects them.

    The blob holds a 0/1 mask of the channels, or the indices of those that stay. Without weights
    the first `num_output` channels stay.
    """
    job.need(1, 1)
    shape = dims(job.x)
    number = job.field("filter_param").need("num_output").int()
    if len(shape) < 2 or not 0 < number <= shape[1]:
        raise job.error(f"cannot keep {number} channels of {list(shape)}")
    indices = np.arange(number)
    blob = job.loaded(0)
    if blob is not None:
        flat = blob.reshape(-1)
        indices = np.flatnonzero(flat) if flat.size == shape[1] != number else flat.astype(np.int64)
        if len(indices) != number or not ((indices >= 0) & (indices < shape[1])).all():
            raise job.error(f"its blob does not select {number} of {shape[1]} channels")
    return [job.node("Gather", job.x, job.integers("kept", indices.tolist()), axis=1)]


CONVERTERS = {
    "Concat": concat,
    "Crop": crop,
    "Filter": filter_,
    "Permute": permute,
    "ShuffleChannel": shuffle_channel,
    "Slice": slice_,
    "Split": split,
    "Tile": tile,
}

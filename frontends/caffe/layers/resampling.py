"""Interp, Upsample and Reorg: layers of forks that change the resolution of `(N, C, H, W)`."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irprune.frontends.caffe.builder import Attribute
from irprune.frontends.caffe.layers.job import Job, dims
from irprune.frontends.caffe.layers.movement import cut
from irprune.frontends.caffe.message import Message


def interp(job: Job) -> Sequence[ir.Value]:
    """Bilinear, corners aligned; negative pads crop first."""
    job.need(1, 2)
    param = job.field("interp_param")
    first, last = param.int("pad_beg", 0), param.int("pad_end", 0)
    sizes = _sizes(job)
    if first > 0 or last > 0:
        raise job.error("pads only crop: they must not be positive")
    inner = [size + first + last for size in sizes]
    if min(inner) < 1:
        raise job.error(f"pads of {first} and {last} leave nothing of {sizes}")
    ends = [size + last for size in sizes]
    x = cut(job, [-first] * 2, ends, range(2, 4), what="cropped")
    return [_resized(job, x, _target(job, param, inner), linear=True)]


def _target(job: Job, param: Message, sizes: list[int]) -> list[int]:
    zoom, shrink = param.int("zoom_factor", None), param.int("shrink_factor", None)
    height, width = param.int("height", None), param.int("width", None)
    if any(number is not None and number < 1 for number in (zoom, shrink, height, width)):
        raise job.error("factors and sizes must be positive")
    if zoom is not None or shrink is not None:
        target = [(size - 1) // shrink + 1 for size in sizes] if shrink else sizes
        return [size + (size - 1) * (zoom - 1) for size in target] if zoom else target
    if height is not None and width is not None:
        return [height, width]
    if len(job.bottoms) == 2:
        return _sizes(job, 1)
    raise job.error("needs zoom_factor, shrink_factor, or height and width")


def upsample(job: Job) -> Sequence[ir.Value]:
    """Every pixel repeated `scale` times each way; with a second bottom, SegNet's unpooling.

    Then the second bottom is the mask of the pooling layer: where each maximum came from.
    """
    param = job.field("upsample_param")
    found = param.one("mode")
    mode = "nearest" if found is None else str(found.value).lower()
    job.need(1, 2)
    sizes, scale = _sizes(job), param.int("scale", 2)
    high, wide = param.int("scale_h", scale), param.int("scale_w", scale)
    target = [
        param.int("upsample_h", param.int("height", sizes[0] * high)),
        param.int("upsample_w", param.int("width", sizes[1] * wide)),
    ]
    if min(high, wide, *target) < 1:
        raise job.error("scales and sizes must be positive")
    if mode not in ("nearest", "bilinear"):
        raise job.error(f"mode {mode} is not known: it is nearest or bilinear")
    if len(job.bottoms) == 1:
        return [_resized(job, job.x, target, linear=mode == "bilinear")]
    mask = job.bottoms[1]
    if mask.dtype != ir.DataType.INT64 or dims(mask) != dims(job.x):
        raise job.error("its second bottom must be the mask of a pooling layer of its shape")
    if target != [sizes[0] * high, sizes[1] * wide]:
        raise job.error("unpooling to other sizes than scale times the bottom's is not supported")
    return [job.node("MaxUnpool", job.x, mask, kernel_shape=[high, wide], strides=[high, wide])]


def _resized(job: Job, x: ir.Value, target: list[int], *, linear: bool) -> ir.Value:
    if list(dims(x)[2:]) == target:
        return x
    scales = [1.0, 1.0, *(to / of for to, of in zip(target, dims(x)[2:], strict=True))]
    if linear:
        # Aligned corners need the exact size; scales say it too roughly.
        sizes = job.integers("sizes", [*dims(x)[:2], *target])
        kind: dict[str, Attribute] = {
            "mode": "linear",
            "coordinate_transformation_mode": "align_corners",
        }
        return job.node("Resize", x, None, None, sizes, **kind)
    nearest: dict[str, Attribute] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return job.node("Resize", x, None, job.constant("scales", scales), **nearest)


def reorg(job: Job) -> Sequence[ir.Value]:
    """YOLOv2's reorganisation: blocks of pixels become channels.

    As darknet computes it, the input is first read as if it had `C / stride^2` channels of images
    `stride` times as high and wide. `reverse` is the plain inverse of moving blocks to channels.
    """
    param = job.field("reorg_param")
    stride, back = param.int("stride", 2), param.bool("reverse", False)
    _sizes(job)
    _, channels, height, width = dims(job.x)
    area = stride * stride
    if stride < 1 or channels % area or (not back and (height % stride or width % stride)):
        raise job.error(f"cannot reorganise {list(dims(job.x))} by {stride}")
    if back:
        return [job.node("DepthToSpace", job.x, blocksize=stride)]
    read = [0, channels // area, height * stride, width * stride]
    moved = job.node(
        "SpaceToDepth", job.reshape(job.x, read, "read"), what="moved", blocksize=stride
    )
    return [job.reshape(moved, [0, channels * area, height // stride, width // stride])]


def _sizes(job: Job, index: int = 0) -> list[int]:
    """Height and width of a bottom."""
    shape = dims(job.bottoms[index] if index else job.x)
    if len(shape) != 4:
        raise job.error(f"needs bottoms of 4 axes, bottom {index} has {list(shape)}")
    return list(shape[2:])


CONVERTERS = {"Interp": interp, "Reorg": reorg, "Upsample": upsample}

"""Pooling with Caffe's rules for borders, data `(N, C, H, W)`.

Caffe rounds the number of windows up. With padding it drops a last window that would start beyond
the image and its left padding. MAX looks at the image alone; AVE divides by the part of the window
within image and padding: a window that hangs out beyond the right padding has a smaller divisor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irprune.frontends.caffe.builder import Attribute
from irprune.frontends.caffe.layers.convolution import spatial
from irprune.frontends.caffe.layers.job import Job, dims

METHODS = ("MAX", "AVE", "STOCHASTIC")

_TINY = float(np.finfo(np.float32).tiny)
"""What Caffe's stochastic pooling starts its sums from."""


def pooling(job: Job) -> Sequence[ir.Value]:
    param = job.field("pooling_param")
    param.ignore("engine")
    x, sizes = job.x, dims(job.x)[2:]
    if len(sizes) != 2:
        raise job.error(f"needs a bottom of 4 axes, has {list(dims(x))}")
    if len(job.layer.tops) > 2:
        raise job.error(f"makes the pooled blob and its mask, the file names {len(job.layer.tops)}")
    method = param.enum("pool", METHODS, "MAX")
    up = param.enum("round_mode", ("CEIL", "FLOOR"), "CEIL") == "CEIL"
    up = param.bool("ceil_mode", up)
    if param.bool("global_pooling", False):
        param.ignore("kernel_size", "kernel_h", "kernel_w")
        kernel = list(sizes)
    else:
        kernel = spatial(job, param, "kernel", 2, None)
    pads = spatial(job, param, "pad", 2, 0)
    strides = spatial(job, param, "stride", 2, 1)
    if any(pad >= size for pad, size in zip(pads, kernel, strict=True)):
        raise job.error("the padding must be smaller than the kernel")
    windows = [
        count(size, k, pad, stride, up, any(pads))
        for size, k, pad, stride in zip(sizes, kernel, pads, strides, strict=True)
    ]
    for n, size, pad, stride in zip(windows, sizes, pads, strides, strict=True):
        if n < 1 or (n - 1) * stride >= size + pad:
            raise job.error(
                f"a window of {' x '.join(map(str, kernel))} lies outside the image of "
                f"{' x '.join(map(str, sizes))}"
            )
    ends = [
        max(0, (n - 1) * stride + k - size - pad)
        for n, stride, k, size, pad in zip(windows, strides, kernel, sizes, pads, strict=True)
    ]
    if kernel == list(sizes) and not any((*pads, *ends)) and method != "STOCHASTIC":
        op = "GlobalMaxPool" if method == "MAX" else "GlobalAveragePool"
        if len(job.layer.tops) == 1:
            return [job.node(op, x)]
    window: dict[str, Attribute] = {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": [*pads, *ends],
    }
    if method == "MAX":
        return list(job.nodes(len(job.layer.tops), "MaxPool", x, **window))
    if method == "STOCHASTIC":
        if any(pads):
            raise job.error("Caffe pads MAX and AVE pooling only")
        squares = job.node("Mul", x, x, what="squares")
        above = job.node("AveragePool", squares, what="sum_of_squares", **window)
        below = job.node("AveragePool", x, what="sum", **window)
        tiny = job.constant("tiny", _TINY)
        return [job.node("Div", above, job.node("Add", below, tiny, what="sum_and_tiny"))]
    scale = np.ones((1, 1, *windows), np.float32)
    for axis in range(2):
        starts = np.arange(windows[axis]) * strides[axis]
        inside = np.minimum(starts + kernel[axis], sizes[axis] + 2 * pads[axis]) - starts
        scale *= (kernel[axis] / inside).reshape((-1, 1) if axis == 0 else (1, -1))
    if (scale == 1).all():
        return [job.node("AveragePool", x, count_include_pad=1, **window)]
    mean = job.node("AveragePool", x, what="mean", count_include_pad=1, **window)
    return [job.node("Mul", mean, job.constant("border", scale.astype(np.float32)))]


def count(size: int, kernel: int, pad: int, stride: int, up: bool, padded: bool) -> int:
    """How many windows Caffe puts along an axis; `padded` says that any axis has padding."""
    room = size + 2 * pad - kernel
    windows = (-(-room // stride) if up else room // stride) + 1
    if padded and (windows - 1) * stride >= size + pad:
        windows -= 1
    return windows


CONVERTERS = {"Pooling": pooling}

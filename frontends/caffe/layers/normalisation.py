"""BatchNorm, BN, LRN, MVN and Normalize, data `(N, C, *spatial)`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims

REGIONS = ("ACROSS_CHANNELS", "WITHIN_CHANNEL")


def batch_norm(job: Job) -> Sequence[ir.Value]:
    """(x - mean) / sqrt(var + eps); the third blob divides the sums in the first two.

    A Scale layer that follows becomes the scale and bias of the same node (`Job.merge_scale`).
    With `scale_bias`, a fork's field, the layer has these two as blobs of its own.
    """
    param = job.field("batch_norm_param")
    param.ignore("moving_average_fraction", "track_running_stats", "engine")
    param.ignore("scale_filler", "bias_filler")
    if not param.bool("use_global_stats", True):
        job.warn("uses the stored statistics, although use_global_stats is false")
    eps, channels = param.float("eps", 1e-5), _channels(job)
    mean = job.blob(0, (channels,), param, "", 0.0)
    var = job.blob(1, (channels,), param, "", 1.0)
    factor = float(job.blob(2, (1,), param, "", 1.0).array[0])
    if factor == 0:
        job.warn("its scale factor is 0: it was never trained, and its statistics count as 0")
    over = np.float32(0 if factor == 0 else 1 / factor)
    statistics = [
        job.parameter(mean, "running_mean", mean.array * over),
        job.parameter(var, "running_var", var.array * over),
    ]
    if param.bool("scale_bias", False):
        scale = job.blob(3, (channels,), param, "scale_filler", 1.0)
        bias = job.blob(4, (channels,), param, "bias_filler", 0.0)
        affine = [job.parameter(scale, "weight"), job.parameter(bias, "bias")]
    else:
        affine = [job.constant("one", np.ones(channels)), job.constant("zero", np.zeros(channels))]
    y = job.node("BatchNormalization", job.x, *affine, *statistics, epsilon=eps)
    if not param.bool("scale_bias", False):
        job.parameters.unscaled.add(y)
    return [y]


def bn(job: Job) -> Sequence[ir.Value]:
    """The forks' BN: scale, shift, mean and variance; with `bn_mode` (SegNet) the first two."""
    param = job.field("bn_param")
    param.ignore("momentum", "frozen", "engine", "icnet", "var_eps")
    channels, eps = _channels(job), param.float("eps", 1e-5)
    first = "scale_filler" if "scale_filler" in param else "slope_filler"
    second = "shift_filler" if "shift_filler" in param else "bias_filler"
    scale = job.blob(0, (channels,), param, first, 1.0)
    shift = job.blob(1, (channels,), param, second, 0.0)
    if "bn_mode" in param:
        if param.enum("bn_mode", ("LEARN", "INFERENCE"), "LEARN") == "LEARN":
            job.warn("its bn_mode is LEARN; the layer is taken as for INFERENCE")
        form = (channels, *[1] * (len(dims(job.x)) - 2))
        weight = job.parameter(scale, "weight", scale.array.reshape(form))
        y = job.node("Mul", job.x, weight, what="scaled")
        return [job.node("Add", y, job.parameter(shift, "bias", shift.array.reshape(form)))]
    inputs = [
        job.parameter(scale, "weight"),
        job.parameter(shift, "bias"),
        job.parameter(job.blob(2, (channels,), param, "", 0.0), "running_mean"),
        job.parameter(job.blob(3, (channels,), param, "", 1.0), "running_var"),
    ]
    return [job.node("BatchNormalization", job.x, *inputs, epsilon=eps)]


def _channels(job: Job) -> int:
    shape = dims(job.x)
    if len(shape) < 2:
        raise job.error(f"needs a bottom of 2 or more axes, has {list(shape)}")
    return shape[1]


def lrn(job: Job) -> Sequence[ir.Value]:
    """x / (k + alpha / n * sum of n squares) ^ beta; within a channel, k is 1."""
    param = job.field("lrn_param")
    param.ignore("engine")
    size = param.int("local_size", 5)
    alpha, beta = param.float("alpha", 1.0), param.float("beta", 0.75)
    k = param.float("k", 1.0)
    if not 0 < size < 2**20 or size % 2 == 0:
        raise job.error(f"local_size must be odd and below 2^20, it is {size}")
    if len(dims(job.x)) != 4:
        raise job.error(f"needs a bottom of 4 axes, has {list(dims(job.x))}")
    if param.enum("norm_region", REGIONS, REGIONS[0]) == "ACROSS_CHANNELS":
        if not (alpha > 0 and beta > 0):
            raise job.error(f"alpha and beta must be positive, they are {alpha:g} and {beta:g}")
        return [job.node("LRN", job.x, size=size, alpha=alpha, beta=beta, bias=k)]
    squares = job.node("Mul", job.x, job.x, what="squares")
    mean = job.node(
        "AveragePool",
        squares,
        what="mean",
        kernel_shape=[size, size],
        pads=[size // 2] * 4,
        count_include_pad=1,
    )
    scaled = job.node("Mul", mean, job.constant("alpha", alpha), what="scaled")
    base = job.node("Add", scaled, job.constant("one", 1.0), what="base")
    factor = job.node("Pow", base, job.constant("beta", -beta), what="factor")
    return [job.node("Mul", job.x, factor)]


def mvn(job: Job) -> Sequence[ir.Value]:
    """(x - mean) / (sqrt(var) + eps) per channel, or over all channels of an image."""
    param = job.field("mvn_param")
    across, eps = param.bool("across_channels", False), param.float("eps", 1e-9)
    rank = len(dims(job.x))
    axes = list(range(1 if across else 2, rank))
    if not axes:
        raise job.error(f"needs a bottom of 3 or more axes, has {list(dims(job.x))}")
    normalised = param.bool("normalize_variance", True)
    mean = job.node("ReduceMean", job.x, what="mean", axes=axes, keepdims=1)
    centred = job.node("Sub", job.x, mean, what="centred" if normalised else "")
    if not normalised:
        return [centred]
    squares = job.node("Mul", centred, centred, what="squares")
    var = job.node("ReduceMean", squares, what="var", axes=axes, keepdims=1)
    deviation = job.node("Sqrt", var, what="deviation")
    below = job.node("Add", deviation, job.constant("eps", eps), what="deviation_and_eps")
    return [job.node("Div", centred, below)]


def normalize(job: Job) -> Sequence[ir.Value]:
    """SSD's L2 norm, over all of an image or over the channels at each position, times a scale."""
    param = job.field("norm_param")
    param.ignore("scale_filler")
    shape = dims(job.x)
    eps = param.float("eps", 1e-10)
    over_all, shared = param.bool("across_spatial", True), param.bool("channel_shared", True)
    blob = job.blob(0, (1,) if shared else (shape[1],), param, "scale_filler", 1.0)
    axes = list(range(1, len(shape))) if over_all else [1]
    squares = job.node("Mul", job.x, job.x, what="squares")
    total = job.node(
        "ReduceSum", squares, job.integers("axes", axes), what="sum_of_squares", keepdims=1
    )
    below = job.node("Add", total, job.constant("eps", eps), what="sum_and_eps")
    unit = job.node("Div", job.x, job.node("Sqrt", below, what="norm"), what="unit")
    array = blob.array.reshape(-1, *[1] * (len(shape) - 2))
    return [job.node("Mul", unit, job.parameter(blob, "weight", array))]


CONVERTERS = {
    "BN": bn,
    "BatchNorm": batch_norm,
    "LRN": lrn,
    "MVN": mvn,
    "Normalize": normalize,
}

"""Functions of one number: ReLU and its kin, powers, exponentials, thresholds, Dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import e, log

import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Converter, Job, dims
from irprune.frontends.caffe.message import Message


def _plain(op: str, *params: str) -> Converter:
    """A converter to one op that takes no settings; `params` are read and say nothing."""

    def convert(job: Job) -> Sequence[ir.Value]:
        job.layer.fields.ignore(*params)
        return [job.node(op, job.x)]

    return convert


def relu(job: Job) -> Sequence[ir.Value]:
    param = job.field("relu_param")
    param.ignore("engine")
    slope = param.float("negative_slope", 0.0)
    return [job.node("LeakyRelu", job.x, alpha=slope) if slope else job.node("Relu", job.x)]


def prelu(job: Job) -> Sequence[ir.Value]:
    """Slopes `(C,)`, or one slope for all channels."""
    param = job.field("prelu_param")
    param.ignore("filler")
    shape = dims(job.x)
    if len(shape) < 2:
        raise job.error(f"needs a bottom of 2 or more axes, has {list(shape)}")
    shared = param.bool("channel_shared", False)
    count = 1 if shared else shape[1]
    blob = job.blob(0, (count,), param, "filler", 0.25)
    slopes = blob.array.reshape(count, *[1] * (len(shape) - 2))
    return [job.node("PRelu", job.x, job.parameter(blob, "weight", slopes))]


def elu(job: Job) -> Sequence[ir.Value]:
    return [job.node("Elu", job.x, alpha=job.field("elu_param").float("alpha", 1.0))]


def selu(job: Job) -> Sequence[ir.Value]:
    param = job.field("selu_param")
    alpha = param.float("alpha", 1.6732632423543772)
    gamma = param.float("lambda", 1.0507009873554805)
    return [job.node("Selu", job.x, alpha=alpha, gamma=gamma)]


def relu6(job: Job) -> Sequence[ir.Value]:
    job.field("relu_param").ignore("engine")
    return _clip(job, 0.0, 6.0)


def clip(job: Job) -> Sequence[ir.Value]:
    param = job.field("clip_param")
    return _clip(job, param.need("min").float(), param.need("max").float())


def _clip(job: Job, least: float, most: float) -> Sequence[ir.Value]:
    return [job.node("Clip", job.x, job.constant("min", least), job.constant("max", most))]


def swish(job: Job) -> Sequence[ir.Value]:
    x = job.x
    gate = job.node(
        "Sigmoid", _affine(job, job.field("swish_param").float("beta", 1.0)), what="gate"
    )
    return [job.node("Mul", x, gate)]


def power(job: Job) -> Sequence[ir.Value]:
    """(shift + scale * x) ^ power"""
    param = job.field("power_param")
    exponent = param.float("power", 1.0)
    scale, shift = param.float("scale", 1.0), param.float("shift", 0.0)
    if exponent == 1.0:
        return [_affine(job, scale, shift, last=True)]
    inner = _affine(job, scale, shift)
    return [job.node("Pow", inner, job.constant("power", exponent))]


def exp(job: Job) -> Sequence[ir.Value]:
    """base ^ (shift + scale * x)"""
    param = job.field("exp_param")
    rate = log(_base(job, param))
    scale, shift = param.float("scale", 1.0), param.float("shift", 0.0)
    return [job.node("Exp", _affine(job, scale * rate, shift * rate))]


def logarithm(job: Job) -> Sequence[ir.Value]:
    """log_base(shift + scale * x)"""
    param = job.field("log_param")
    base = _base(job, param)
    inner = _affine(job, param.float("scale", 1.0), param.float("shift", 0.0))
    if base == e:
        return [job.node("Log", inner)]
    natural = job.node("Log", inner, what="log")
    return [job.node("Mul", natural, job.constant("rate", 1 / log(base)))]


def _base(job: Job, param: Message) -> float:
    base = param.float("base", -1.0)
    if base == -1.0:
        return e
    if base <= 0 or base == 1:
        raise job.error(f"base must be -1 (for e) or positive and not 1, it is {base}")
    return base


def _affine(job: Job, scale: float, shift: float = 0.0, *, last: bool = False) -> ir.Value:
    """scale * x + shift, without what changes nothing."""
    x = job.x
    if scale != 1.0:
        what = "scaled" if shift or not last else ""
        x = job.node("Mul", x, job.constant("scale", scale), what=what)
    if shift:
        what = "" if last else "shifted"
        x = job.node("Add", x, job.constant("shift", shift), what=what)
    return x


def threshold(job: Job) -> Sequence[ir.Value]:
    """1 where x > threshold, else 0"""
    limit = job.constant("threshold", job.field("threshold_param").float("threshold", 0.0))
    above = job.node("Greater", job.x, limit, what="above")
    return [job.node("Cast", above, to=int(ir.DataType.FLOAT))]


def dropout(job: Job) -> Sequence[ir.Value]:
    """Nothing at test time; forks with `scale_train: false` scale then instead of in training."""
    param = job.field("dropout_param")
    ratio = param.float("dropout_ratio", 0.5)
    param.ignore("engine", "inplace")
    if param.bool("scale_train", True):
        return [job.x]
    return [_affine(job, 1 - ratio, last=True)]


CONVERTERS: dict[str, Callable[[Job], Sequence[ir.Value]]] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "Clip": clip,
    "Dropout": dropout,
    "ELU": elu,
    "Exp": exp,
    "Log": logarithm,
    "PReLU": prelu,
    "Power": power,
    "ReLU": relu,
    "ReLU6": relu6,
    "SELU": selu,
    "SeLu": selu,
    "Sigmoid": _plain("Sigmoid", "sigmoid_param"),
    "Swish": swish,
    "TanH": _plain("Tanh", "tanh_param"),
    "Threshold": threshold,
}

"""Blobs combined with blobs or parameters, position by position: Eltwise, Scale, Bias, Axpy."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims

OPERATIONS = ("PROD", "SUM", "MAX")

_CHAINED = {"PROD": "Mul", "SUM": "Add", "MAX": "Max"}


def eltwise(job: Job) -> Sequence[ir.Value]:
    """Product, sum with coefficients, or maximum of blobs of one shape."""
    param = job.field("eltwise_param")
    param.ignore("stable_prod_grad", "engine")
    operation = param.enum("operation", OPERATIONS, "SUM")
    coefficients = param.floats("coeff")
    job.need(2)
    shapes = {dims(bottom) for bottom in job.bottoms}
    if len(shapes) > 1:
        listed = ", ".join(str(list(dims(bottom))) for bottom in job.bottoms)
        raise job.error(f"its bottoms must have one shape, they have {listed}")
    if coefficients and operation != "SUM":
        raise job.error(f"coefficients go with SUM, not with {operation}")
    if coefficients and len(coefficients) != len(job.bottoms):
        raise job.error(f"has {len(job.bottoms)} bottoms and {len(coefficients)} coefficients")
    terms = list(job.bottoms)
    if coefficients == [1.0, -1.0]:
        return [job.node("Sub", *terms)]
    for index, number in enumerate(coefficients):
        if number != 1.0:
            factor = job.constant(f"coeff_{index}", number)
            terms[index] = job.node("Mul", terms[index], factor, what=f"term_{index}")
    if operation == "MAX":
        return [job.node("Max", *terms)]
    result, op = terms[0], _CHAINED[operation]
    for index, term in enumerate(terms[1:], 2):
        result = job.node(op, result, term, what="" if index == len(terms) else f"of_{index}")
    return [result]


def scale(job: Job) -> Sequence[ir.Value]:
    """Times a parameter or a second bottom, both aligned with the axes from `axis` on."""
    param = job.field("scale_param")
    param.ignore("filler", "bias_filler", "l1_lambda")
    job.need(1, 2)
    with_bias = param.bool("bias_term", False)
    x, rank = job.x, len(dims(job.x))
    axis = job.axis(param.int("axis", 1), end=True)
    number = param.int("num_axes", 1)
    if len(job.bottoms) == 2:
        factor, spans = _aligned(job, axis), dims(job.bottoms[1])
        y = job.node("Mul", x, factor, what="scaled" if with_bias else "")
        if not with_bias:
            return [y]
        blob = job.blob(0, spans, param, "bias_filler")
        array = blob.array.reshape((*spans, *[1] * (rank - axis - len(spans))))
        return [job.node("Add", y, job.parameter(blob, "bias", array))]
    spans = _span(job, axis, number)
    weight = job.blob(0, spans, param, "filler", 1.0)
    bias = job.blob(1, spans, param, "bias_filler") if with_bias else None
    folded = job.merge_scale(weight, bias) if (axis, len(spans)) == (1, 1) else None
    if folded is not None:
        return [folded]
    aligned = (*spans, *[1] * (rank - axis - len(spans)))
    array = weight.array.reshape(aligned)
    factor = job.parameter(weight, "weight", array)
    y = job.node("Mul", x, factor, what="scaled" if bias else "")
    if bias is None:
        return [y]
    array = bias.array.reshape(aligned)
    return [job.node("Add", y, job.parameter(bias, "bias", array))]


def bias(job: Job) -> Sequence[ir.Value]:
    """Plus a parameter or a second bottom, both aligned with the axes from `axis` on."""
    param = job.field("bias_param")
    param.ignore("filler")
    job.need(1, 2)
    axis = job.axis(param.int("axis", 1), end=True)
    number = param.int("num_axes", 1)
    if len(job.bottoms) == 2:
        return [job.node("Add", job.x, _aligned(job, axis))]
    spans = _span(job, axis, number)
    blob = job.blob(0, spans, param, "filler")
    array = blob.array.reshape((*spans, *[1] * (len(dims(job.x)) - axis - len(spans))))
    return [job.node("Add", job.x, job.parameter(blob, "bias", array))]


def _span(job: Job, axis: int, number: int) -> tuple[int, ...]:
    """The shape of a parameter that spans `number` axes from `axis` on; -1 is all of them."""
    shape = dims(job.x)
    end = len(shape) if number == -1 else axis + number
    if number < -1 or end > len(shape):
        raise job.error(f"has no {number} axes from axis {axis} on: its bottom is {list(shape)}")
    return shape[axis:end]


def _aligned(job: Job, axis: int) -> ir.Value:
    """The second bottom with axes of length 1 behind, so that it broadcasts from `axis` on."""
    shape, other = dims(job.x), dims(job.bottoms[1])
    axis = 0 if not other else axis
    if shape[axis : axis + len(other)] != other:
        raise job.error(f"cannot align {list(other)} with {list(shape)} from axis {axis} on")
    behind = range(len(other), len(shape) - axis)
    if not behind or not other:
        return job.bottoms[1]
    return job.node("Unsqueeze", job.bottoms[1], job.integers("axes", behind), what="aligned")


def axpy(job: Job) -> Sequence[ir.Value]:
    """a * x + y with one `a` per image and channel: the scale of a squeeze-excitation block."""
    job.need(3, 3)
    a, x, y = job.bottoms
    shape, rank = dims(a), len(dims(x))
    if dims(x) != dims(y) or shape[:2] != dims(x)[:2] or any(n != 1 for n in shape[2:]):
        listed = ", ".join(str(list(dims(bottom))) for bottom in job.bottoms)
        raise job.error(f"takes (N, C, 1, 1), (N, C, H, W), (N, C, H, W), has {listed}")
    if len(shape) < rank:
        axes = job.integers("axes", range(len(shape), rank))
        a = job.node("Unsqueeze", a, axes, what="aligned")
    return [job.node("Add", job.node("Mul", a, x, what="scaled"), y)]


CONVERTERS = {"Axpy": axpy, "Bias": bias, "Eltwise": eltwise, "Scale": scale}

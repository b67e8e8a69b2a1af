"""Reduction, ArgMax and Softmax."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims

OPERATIONS = {
    "SUM": "ReduceSum",
    "ASUM": "ReduceL1",
    "SUMSQ": "ReduceSumSquare",
    "MEAN": "ReduceMean",
}


def reduction(job: Job) -> Sequence[ir.Value]:
    """Over `axis` and all that follow, which vanish; times a coefficient."""
    param = job.field("reduction_param")
    operation = param.enum("operation", ("", *OPERATIONS), "SUM")
    if not operation:
        raise job.error("operation cannot be 0", f"it is one of {', '.join(OPERATIONS)}")
    axes = list(range(job.axis(param.int("axis", 0)), len(dims(job.x))))
    coefficient = param.float("coeff", 1.0)
    what, op = "" if coefficient == 1 else "reduced", OPERATIONS[operation]
    if op == "ReduceSum":
        y = job.node(op, job.x, job.integers("axes", axes), what=what, keepdims=0)
    else:
        y = job.node(op, job.x, what=what, axes=axes, keepdims=0)
    return [job.node("Mul", y, job.constant("coeff", coefficient)) if what else y]


def argmax(job: Job) -> Sequence[ir.Value]:
    """Indices of the `top_k` largest, as floats, or their values, or (without an axis) both.

    Without `axis` an image is flattened and tops are `(N, 1, top_k)`, with values `(N, 2, top_k)`.
    Of equal numbers Caffe takes the last; among more than one, ONNX takes the first.
    """
    param = job.field("argmax_param")
    values, k = param.bool("out_max_val", False), param.int("top_k", 1)
    chosen = param.int("axis", None)
    x, axis = job.x, 1 if chosen is None else job.axis(chosen)
    shape = dims(x)
    length = prod(shape[1:]) if chosen is None else shape[axis]
    if not 1 <= k <= length:
        raise job.error(f"top_k must be 1 to {length}, it is {k}")
    if chosen is None:
        x, axis = job.reshape(x, [0, 1, -1], "flat"), 2
    both = values and chosen is None
    if k == 1:
        found = job.node("ArgMax", x, what="index", axis=axis, keepdims=1, select_last_index=1)
        best = (
            job.node("ReduceMax", x, what="best" if both else "", axes=[axis], keepdims=1)
            if values
            else x
        )
    else:
        best, found = job.nodes(2, "TopK", x, job.integers("k", [k]), what="top", axis=axis)
    if values and not both:
        return [best]
    floats = job.node("Cast", found, what="indices" if both else "", to=int(ir.DataType.FLOAT))
    return [job.node("Concat", floats, best, axis=1) if both else floats]


def softmax(job: Job) -> Sequence[ir.Value]:
    param = job.field("softmax_param")
    param.ignore("engine")
    return [job.node("Softmax", job.x, axis=job.axis(param.int("axis", 1)))]


CONVERTERS = {"ArgMax": argmax, "Reduction": reduction, "Softmax": softmax}

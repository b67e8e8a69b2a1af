"""Flatten and Reshape: targets copy the length of the batch where they can."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims


def flatten(job: Job) -> Sequence[ir.Value]:
    """The axes from `axis` to `end_axis`, both included, become one."""
    param = job.field("flatten_param")
    shape = dims(job.x)
    first, last = job.axis(param.int("axis", 1)), job.axis(param.int("end_axis", -1))
    if last < first:
        raise job.error(f"end_axis {last} stands before axis {first}")
    if first == last:
        return [job.x]
    return [job.reshape(job.x, [*[0] * first, -1, *shape[last + 1 :]])]


def reshape(job: Job) -> Sequence[ir.Value]:
    """`num_axes` axes from `axis` on get new lengths; 0 copies the old one, -1 is what remains."""
    param = job.field("reshape_param")
    shape = dims(job.x)
    first = job.axis(param.int("axis", 0), end=True)
    number = param.int("num_axes", -1)
    end = len(shape) if number == -1 else first + number
    if number < -1 or end > len(shape):
        raise job.error(f"has no {number} axes from axis {first} on: its bottom is {list(shape)}")
    target = param.message("shape").ints("dim")
    for index, dim in enumerate(target):
        if dim < -1 or (dim == 0 and first + index >= len(shape)):
            raise job.error(f"dim {dim} cannot stand on axis {first + index} of {list(shape)}")
    if target.count(-1) > 1:
        raise job.error("only one dim can be -1")
    whole = [*[0] * first, *target, *shape[end:]]
    fixed = prod(shape[k] if dim == 0 else dim for k, dim in enumerate(whole) if dim != -1)
    if prod(shape) % fixed if -1 in whole else prod(shape) != fixed:
        raise job.error(f"cannot make {whole} of {list(shape)}")
    return [job.reshape(job.x, whole)]


CONVERTERS = {"Flatten": flatten, "Reshape": reshape}

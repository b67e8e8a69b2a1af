"""InnerProduct: the axes from `axis` on are flattened and multiplied by a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims


def inner_product(job: Job) -> Sequence[ir.Value]:
    """`(..., K)` to `(..., M)`; weight `(M, K)`, or `(K, M)` with `transpose`; bias `(M,)`."""
    param = job.field("inner_product_param")
    param.ignore("weight_filler", "bias_filler", "engine")
    x, axis = job.x, job.axis(param.int("axis", 1))
    outputs, transposed = param.need("num_output").int(), param.bool("transpose", False)
    if outputs < 1:
        raise job.error(f"num_output cannot be {outputs}")
    shape = dims(x)
    inner = prod(shape[axis:])
    matrix = (inner, outputs) if transposed else (outputs, inner)
    weight = job.blob(0, matrix, param, "weight_filler", None)
    inputs = [job.parameter(weight, "weight")]
    if param.bool("bias_term", True):
        inputs.append(job.parameter(job.blob(1, (outputs,), param, "bias_filler"), "bias"))
    plain = axis == 1
    rows = x if plain and len(shape) == 2 else job.node("Flatten", x, what="flatten", axis=axis)
    what = "" if plain else "gemm"
    y = job.node("Gemm", rows, *inputs, what=what, transB=0 if transposed else 1)
    if plain:
        return [y]
    # The length of the batch is the one that may become dynamic.
    target = [-1, *shape[1:axis], outputs] if axis else [outputs]
    return [job.reshape(y, target)]


CONVERTERS = {"InnerProduct": inner_product}

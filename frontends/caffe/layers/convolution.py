"""Convolution and Deconvolution, with the forks' depthwise forms.

Data `(N, C, *spatial)`; weight `(M, C / group, *kernel)`, for Deconvolution `(C, M / group,
*kernel)`; bias `(M,)`: the layouts of ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job, dims
from irprune.frontends.caffe.message import Message


def convolution(job: Job) -> Sequence[ir.Value]:
    return _windowed(job, "Conv", depthwise=False)


def depthwise(job: Job) -> Sequence[ir.Value]:
    return _windowed(job, "Conv", depthwise=True)


def deconvolution(job: Job) -> Sequence[ir.Value]:
    return _windowed(job, "ConvTranspose", depthwise=False)


def _windowed(job: Job, op: str, depthwise: bool) -> Sequence[ir.Value]:
    job.need(1)
    param = job.field("convolution_param")
    param.ignore("engine", "force_nd_im2col", "weight_filler", "bias_filler")
    shape = dims(job.x)
    if len(shape) < 3:
        raise job.error(f"needs a bottom of 3 or more axes, has {list(shape)}")
    if any(dims(bottom) != shape for bottom in job.bottoms):
        listed = ", ".join(str(list(dims(bottom))) for bottom in job.bottoms)
        raise job.error(f"its bottoms must have one shape, they have {listed}")
    if job.axis(param.int("axis", 1)) != 1:
        raise job.error("channels are supported on axis 1 only", "permute the axes first")
    channels, rank = shape[1], len(shape) - 2
    kernel = spatial(job, param, "kernel", rank, None)
    group = param.int("group", channels if depthwise else 1)
    if depthwise:
        group = channels
    outputs = param.need("num_output").int()
    if group < 1 or channels % group or outputs % group or outputs < 1:
        raise job.error(f"{channels} channels, {outputs} outputs and group {group} do not fit")
    first, second = (outputs, channels) if op == "Conv" else (channels, outputs)
    weight = job.blob(0, (first, second // group, *kernel), param, "weight_filler", None)
    inputs = [job.parameter(weight, "weight")]
    if param.bool("bias_term", True):
        inputs.append(job.parameter(job.blob(1, (outputs,), param, "bias_filler"), "bias"))
    pads = spatial(job, param, "pad", rank, 0)
    strides = spatial(job, param, "stride", rank, 1)
    dilations = _repeated(job, param, "dilation", rank, 1)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    room = [size + 2 * pad for size, pad in zip(shape[2:], pads, strict=True)]
    if op == "Conv" and any(r > n for r, n in zip(reach, room, strict=True)):
        raise job.error(
            f"a kernel over {' x '.join(map(str, reach))} does not fit an image of "
            f"{' x '.join(map(str, room))} with its padding"
        )
    return [
        job.node(
            op,
            x,
            *inputs,
            what=f"{index}" if index else "",
            kernel_shape=kernel,
            pads=[*pads, *pads],
            strides=strides,
            dilations=dilations,
            group=group,
        )
        for index, x in enumerate(job.bottoms)
    ]


_SPELLINGS = {"kernel": "kernel_size", "pad": "pad", "stride": "stride"}


def spatial(job: Job, param: Message, stem: str, rank: int, default: int | None) -> list[int]:
    """A window size per spatial axis: `<stem>_h` and `<stem>_w`, or one number for all, or each."""
    high, wide = param.int(f"{stem}_h", None), param.int(f"{stem}_w", None)
    if high is None and wide is None:
        return _repeated(job, param, _SPELLINGS[stem], rank, default)
    if rank != 2 or param.all(_SPELLINGS[stem]):
        raise job.error(f"{stem}_h and {stem}_w stand alone, and for two spatial axes")
    missing = 0 if default is None else default
    return _checked(job, stem, [missing if n is None else n for n in (high, wide)])


def _repeated(job: Job, param: Message, name: str, rank: int, default: int | None) -> list[int]:
    numbers = param.ints(name) or ([] if default is None else [default])
    if len(numbers) not in (1, rank):
        raise job.error(f"needs {name} once or {rank} times, has it {len(numbers)} times")
    return _checked(job, name, numbers * rank if len(numbers) == 1 else numbers)


def _checked(job: Job, name: str, numbers: list[int]) -> list[int]:
    least = 0 if name == "pad" else 1
    if any(not least <= number < 2**20 for number in numbers):
        raise job.error(f"{name} cannot be {' x '.join(map(str, numbers))}")
    return numbers


CONVERTERS = {
    "Convolution": convolution,
    "ConvolutionDepthwise": depthwise,
    "Deconvolution": deconvolution,
    "DepthwiseConvolution": depthwise,
}

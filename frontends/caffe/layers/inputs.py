"""Layers that make data: their tops become graph inputs, or constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irprune.frontends.caffe.layers.job import Job
from irprune.frontends.caffe.message import Message
from irprune.frontends.caffe.network import Layer

DATA = {
    "AnnotatedData": "data_param",
    "Data": "data_param",
    "DummyData": "dummy_data_param",
    "HDF5Data": "hdf5_data_param",
    "ImageData": "image_data_param",
    "Input": "input_param",
    "MemoryData": "memory_data_param",
    "WindowData": "window_data_param",
}
"""By type of data layer: the field that describes the data."""

_COLOURS, _SIDE, _BATCH = 3, 32, 1
"""Lengths of images where a file states none."""


@dataclass(frozen=True)
class Declared:
    """The shape of a top of a data layer; `chosen` names what the file does not state."""

    top: str
    shape: tuple[int, ...]
    chosen: tuple[str, ...] = ()


def declared(layer: Layer) -> list[Declared]:
    """The shapes of the tops of a data layer, as far as its fields state them."""
    param = layer.fields.message(DATA[layer.type])
    if layer.type in ("Input", "DummyData"):
        param.ignore("data_filler")
        return [
            Declared(top, shape)
            for top, shape in zip(layer.tops, _stated(layer, param), strict=True)
        ]
    transform = layer.fields.message("transform_param")
    resize = transform.message("resize_param")
    crop = transform.int("crop_size", None) or param.int("crop_size", None)
    high, wide = (
        crop or _number(resize, name) or _number(param, f"new_{name}", name)
        for name in ("height", "width")
    )
    means = len(transform.all("mean_value"))
    lengths = {
        "batch": _number(param, "batch_size"),
        "channels": _number(param, "channels") or (means if means > 1 else None),
        "height": high,
        "width": wide,
    }
    if layer.type in ("ImageData", "WindowData") and lengths["channels"] is None:
        lengths["channels"] = _COLOURS if param.bool("is_color", True) else 1
    for one in (param, transform, layer.fields):
        one.ignore(*(field.name for field in one.fields))
    chosen = tuple(name for name, length in lengths.items() if length is None)
    standing = {"batch": _BATCH, "channels": _COLOURS, "height": _SIDE, "width": _SIDE}
    shape = tuple(length or standing[name] for name, length in lengths.items())
    if min(shape) < 1:
        raise layer.error(f"cannot make data of the shape {list(shape)}")
    tops = [Declared(top, shape, chosen) for top in layer.tops]
    if layer.type != "HDF5Data":  # there the tops are named freely; else the second is the label
        label = tuple(name for name in chosen if name == "batch")
        tops[1:] = [Declared(top, shape[:1], label) for top in layer.tops[1:]]
    return tops


def _number(param: Message, *names: str) -> int | None:
    """The first of these fields that is there and not 0, which means unknown."""
    return next((number for name in names if (number := param.int(name, None))), None)


def _stated(layer: Layer, param: Message) -> list[tuple[int, ...]]:
    """A shape per top: from `shape`, or from the older four numbers."""
    shapes = [tuple(shape.ints("dim")) for shape in param.messages("shape")]
    if not shapes:
        columns = [param.ints(name) for name in ("num", "channels", "height", "width")]
        if len({len(column) for column in columns}) != 1:
            raise layer.error("num, channels, height and width must be given equally often")
        shapes = list(zip(*columns, strict=True))
    if len(shapes) == 1:
        shapes *= len(layer.tops)
    if len(shapes) != len(layer.tops):
        raise layer.error(f"has {len(layer.tops)} tops and {len(shapes)} shapes")
    for shape in shapes:
        if any(not 0 < dim < 2**31 for dim in shape):
            raise layer.error(f"cannot make data of the shape {list(shape)}")
    return shapes


def constant_data(layer: Layer) -> bool:
    """Whether a data layer makes the same numbers each time."""
    if layer.type != "DummyData":
        return False
    fillers = layer.fields.message("dummy_data_param").messages("data_filler")
    kinds = [filler.str("type", "constant") for filler in fillers]
    return all(kind == "constant" for kind in kinds)


def dummy_data(job: Job) -> Sequence[ir.Value]:
    """The constants of a DummyData layer, one per top."""
    param = job.field("dummy_data_param")
    fillers = param.messages("data_filler")
    numbers = [filler.float("value", 0.0) for filler in fillers] or [0.0]
    if len(numbers) == 1:
        numbers *= len(job.layer.tops)
    if len(numbers) != len(job.layer.tops):
        raise job.error(f"has {len(job.layer.tops)} tops and {len(numbers)} fillers")
    return [
        job.constant(top.top, np.full(top.shape, number))
        for top, number in zip(declared(job.layer), numbers, strict=True)
    ]


def parameter(job: Job) -> Sequence[ir.Value]:
    """A blob of parameters as a top."""
    job.need(0, 0)
    param = job.field("parameter_param")
    shape = param.message("shape").ints("dim")
    if any(not 0 < dim < 2**31 for dim in shape):
        raise job.error(f"cannot make parameters of the shape {shape}")
    return [job.parameter(job.blob(0, shape, param, "", None if len(shape) > 1 else 0.0), "weight")]


CONVERTERS = {"DummyData": dummy_data, "Parameter": parameter}

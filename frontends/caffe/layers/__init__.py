"""Layers to ONNX nodes, one file per family.

A converter takes a `Job` and returns the values of the layer's tops. Adding a layer type is one
entry in the `CONVERTERS` of its family's file; a family is one line in `FAMILIES`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from irprune.frontends.caffe.layers.job import Converter

FAMILIES = (
    "activations",
    "arithmetic",
    "convolution",
    "inner_product",
    "inputs",
    "movement",
    "normalisation",
    "pooling",
    "reduction",
    "resampling",
    "shapes",
)


@cache
def converters() -> dict[str, Converter]:
    """The converter of every known layer type; two converters for one type are refused."""
    table: dict[str, Converter] = {}
    for family in FAMILIES:
        module = import_module(f"irprune.frontends.caffe.layers.{family}")
        for kind, converter in module.CONVERTERS.items():
            if kind in table:
                raise ValueError(f"two converters for {kind}")
            table[kind] = converter
    return table

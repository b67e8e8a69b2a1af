"""Caffe: networks and solvers in protobuf text format, weights in the wire format."""

from __future__ import annotations

from irprune.frontends.caffe.build import from_caffe, import_caffe
from irprune.frontends.caffe.options import Options

__all__ = ["Options", "from_caffe", "import_caffe"]

"""Caffe: networks and solvers in protobuf text format, weights in the wire format."""

from __future__ import annotations

from irprune.frontends.caffe.build import from_caffe, import_caffe
from irprune.frontends.caffe.options import Options
from irprune.frontends.caffe.recipe import recipe_of
from irprune.frontends.caffe.solver import read_solver

__all__ = ["Options", "from_caffe", "import_caffe", "read_solver", "recipe_of"]

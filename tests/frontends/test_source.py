"""A path alone says which frontend reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from irprune.errors import IrpruneError
from irprune.fingerprint import weights_hash
from irprune.frontends.source import Source

NET = """
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
"""

FACTORY = """
import torch

def net():
    return torch.nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 8, 8),)
"""


@pytest.fixture
def caffe(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path / "net.prototxt"


def test_every_kind_of_path_is_read(caffe: Path) -> None:
    first = Source().read(caffe, seed=1)
    first.save(caffe.with_name("net.onnx"))
    (caffe.with_name("net.py")).write_text(FACTORY)
    for name in ("net.onnx", "net.py:net"):
        model = Source().read(caffe.with_name(name))
        shapes = [tuple(each.shape or ()) for each in model.ir.graph.initializers.values()]
        assert (4, 3, 3, 3) in shapes, name
    assert weights_hash(Source().read(caffe, seed=1).ir) == weights_hash(first.ir)
    assert weights_hash(Source().read(caffe, seed=2).ir) != weights_hash(first.ir)


def test_what_belongs_to_a_caffe_network_goes_with_no_other(caffe: Path) -> None:
    path = caffe.with_name("net.onnx")
    Source().read(caffe).save(path)
    for source in (Source(weights=caffe), Source(stages=("x",)), Source(dynamic_batch=True)):
        with pytest.raises(IrpruneError, match=r"net\.onnx: .*go with a \.prototxt"):
            source.read(path)
    Source(warn=print).read(path)

"""Layers with fields that make little sense: each is refused by name, or becomes ONNX that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from caffe_run import imported, run
from hypothesis import given, settings
from hypothesis import strategies as st

from irprune.errors import IrpruneError
from irprune.frontends.caffe import layers as layers_of_caffe
from irprune.frontends.caffe.layers import converters

FIELDS = {
    "argmax_param": "axis top_k out_max_val",
    "batch_norm_param": "eps use_global_stats scale_bias",
    "bias_param": "axis num_axes",
    "bn_param": "eps bn_mode",
    "clip_param": "min max",
    "concat_param": "axis concat_dim",
    "convolution_param": "num_output kernel_size kernel_h kernel_w pad pad_h stride stride_w "
    "dilation group bias_term axis",
    "crop_param": "axis offset",
    "dropout_param": "dropout_ratio scale_train",
    "dummy_data_param": "num channels height width shape data_filler",
    "eltwise_param": "operation coeff",
    "elu_param": "alpha",
    "exp_param": "base scale shift",
    "filter_param": "num_output",
    "flatten_param": "axis end_axis",
    "inner_product_param": "num_output axis transpose bias_term",
    "interp_param": "height width zoom_factor shrink_factor pad_beg pad_end",
    "log_param": "base scale shift",
    "lrn_param": "local_size alpha beta k norm_region",
    "mvn_param": "across_channels normalize_variance eps",
    "norm_param": "across_spatial channel_shared eps",
    "parameter_param": "shape",
    "permute_param": "order",
    "pooling_param": "pool kernel_size kernel_h kernel_w pad pad_w stride stride_h global_pooling "
    "round_mode ceil_mode",
    "power_param": "power scale shift",
    "prelu_param": "channel_shared",
    "reduction_param": "operation axis coeff",
    "relu_param": "negative_slope",
    "reorg_param": "stride reverse",
    "reshape_param": "shape axis num_axes",
    "scale_param": "axis num_axes bias_term",
    "selu_param": "alpha lambda",
    "shuffle_channel_param": "group",
    "slice_param": "axis slice_dim slice_point",
    "softmax_param": "axis",
    "swish_param": "beta",
    "threshold_param": "threshold",
    "tile_param": "axis tiles",
    "upsample_param": "scale scale_h upsample_h upsample_w mode",
}
"""The fields that converters read, by the message that they stand in."""

TYPES = {
    "BN": "bn_param",
    "ConvolutionDepthwise": "convolution_param",
    "Deconvolution": "convolution_param",
    "DepthwiseConvolution": "convolution_param",
    "MVN": "mvn_param",
    "Normalize": "norm_param",
    "ReLU6": "relu_param",
    "SeLu": "selu_param",
} | {
    kind: name
    for kind in converters()
    for name in FIELDS
    if name.replace("_", "").removesuffix("param") == kind.lower()
}

WORDS = {
    "bn_mode": ["LEARN", "INFERENCE"],
    "data_filler": ["{ value: 2 }", "{ type: 'gaussian' }"],
    "mode": ["'nearest'", "'bilinear'"],
    "norm_region": ["ACROSS_CHANNELS", "WITHIN_CHANNEL"],
    "operation": ["SUM", "PROD", "MAX", "ASUM", "SUMSQ", "MEAN"],
    "pool": ["MAX", "AVE", "STOCHASTIC"],
    "round_mode": ["CEIL", "FLOOR"],
    "shape": [
        "{}",
        "{ dim: 2 }",
        "{ dim: 0 dim: -1 }",
        "{ dim: [2, 4, 1, 6] }",
        "{ dim: 0 dim: 8 }",
    ],
}
NEEDED = {
    "Clip": "min: -1 max: 1",
    "Convolution": "num_output: 4 kernel_size: 2",
    "ConvolutionDepthwise": "num_output: 8 kernel_size: 2",
    "Deconvolution": "num_output: 4 kernel_size: 2",
    "DepthwiseConvolution": "num_output: 4 kernel_size: 2",
    "Filter": "num_output: 2",
    "InnerProduct": "num_output: 3",
    "Interp": "zoom_factor: 2",
    "Parameter": "shape { dim: 2 dim: 3 }",
    "Permute": "order: 1 order: 0",
    "Pooling": "kernel_size: 2",
    "Reshape": "shape { dim: 0 dim: -1 }",
    "Tile": "tiles: 2",
}
"""What a layer must be told; given where it does not come at random."""
TAKES = {"Axpy": 3, "Concat": 2, "Crop": 2, "DummyData": 0, "Eltwise": 2, "Parameter": 0}
"""Numbers of bottoms other than one."""
NUMBERS = ["0", "1", "2", "3", "4", "6", "-1", "-2", "0.5", "99999999999", "1e39", "nan", "true"]


@st.composite
def layers(draw: st.DrawFn) -> str:
    """A network of one layer of any type, with bottoms, tops and fields at random."""
    kind = draw(st.sampled_from(sorted(converters())))
    param = TYPES.get(kind, "none_param")
    known = FIELDS.get(param, "x").split()
    fields = []
    for name in draw(st.lists(st.sampled_from(known), max_size=3)):
        likely = WORDS.get(name, ["1", "2"])
        value = draw(st.sampled_from(likely) | st.sampled_from(likely + NUMBERS))
        fields.append(f"{name}: {value}")
    needed = NEEDED.get(kind, "")
    if needed.partition(":")[0] not in " ".join(fields):
        fields.append(needed)
    shape = draw(
        st.sampled_from([(2, 4, 6, 6), (1, 4, 5, 7), (2, 4, 6), (2, 8), (3,), (1, 1, 1, 1)])
    )
    count = draw(st.sampled_from([TAKES.get(kind, 1)] * 8 + [0, 1, 2, 3]))
    other = draw(st.sampled_from([shape, shape, (2, 4), (2, 4, 1, 1), (1, 4, 3, 3)]))
    shapes = [shape, other, shape][:count]
    inputs = [
        f'input: "x{k}" input_shape {{ {" ".join(f"dim: {n}" for n in dims)} }}'
        for k, dims in enumerate(shapes)
    ]
    ends = [f'bottom: "x{k}"' for k in range(count)]
    ends += [f'top: "y{k}"' for k in range(draw(st.sampled_from([1] * 8 + [2, 3])))]
    body = f"{param} {{ {' '.join(fields)} }}"
    return f'{" ".join(inputs)}\nlayer {{ name: "it" type: "{kind}" {" ".join(ends)} {body} }}'


@settings(max_examples=400)
@given(layers())
def test_any_layer_runs_or_is_refused(text: str) -> None:
    try:
        found = imported(text)
    except IrpruneError as error:
        assert str(error).startswith("net.prototxt:")
        return
    graph = found.model.ir.graph
    feeds = {v.name or "": np.ones(v.shape.numpy()) for v in graph.inputs if v.shape}
    shapes = {v.name: v.shape for v in graph.outputs}
    assert shapes == {name: ir.Shape(y.shape) for name, y in run(found, feeds).items()}


def test_the_table_knows_every_field_that_converters_read() -> None:
    folder = Path(layers_of_caffe.__file__).parent
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    for param, names in FIELDS.items():
        assert f'"{param}"' in source, param
        for name in names.split():
            stem = name.removesuffix("_h").removesuffix("_w")
            assert f'"{name}"' in source or f'"{stem}"' in source, name

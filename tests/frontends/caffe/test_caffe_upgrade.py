"""The older layer syntaxes become the current one."""

from __future__ import annotations

from pathlib import Path

import pytest

from irprune.errors import IrpruneError
from irprune.frontends.caffe.message import Message
from irprune.frontends.caffe.network import Param, network_of, read_network
from irprune.frontends.caffe.text import parse
from irprune.frontends.caffe.upgrade import current_layers


def upgraded(text: str) -> list[Message]:
    return current_layers(parse(text))


def same(old: str, current: str) -> None:
    """Check that an old layer and a current one have the same fields, in whatever order."""
    (ours,), (expected,) = upgraded(old), upgraded(current)
    assert sorted(ours.fields, key=repr) == sorted(expected.fields, key=repr)


def failure(text: str) -> str:
    with pytest.raises(IrpruneError) as caught:
        upgraded(text)
    return str(caught.value)


def test_v1_layers_become_current_ones() -> None:
    same(
        "layers { name: 'c' type: CONVOLUTION bottom: 'x' top: 'y' blobs_lr: 1 blobs_lr: 2 "
        "weight_decay: 1 param: 'w' param: 'b' convolution_param { num_output: 3 } include { } }",
        "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'y' "
        "param { name: 'w' lr_mult: 1 decay_mult: 1 } param { name: 'b' lr_mult: 2 } "
        "convolution_param { num_output: 3 } include { } }",
    )


def test_v1_shared_names_reach_the_layer() -> None:
    net = network_of(parse("layers { type: DUMMY_DATA top: 'x' param: 'w' param: '' blobs_lr: 1 }"))
    assert net.layers[0].params == [Param("w", 1), Param()]
    assert not list(net.unread())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
        ("TANH", "TanH"),
        ("LRN", "LRN"),
        ("HDF5_DATA", "HDF5Data"),
        ("INNER_PRODUCT", "InnerProduct"),
        ("18", "ReLU"),
        ("39", "Deconvolution"),
        ("4", "Convolution"),
        ("33", "Slice"),
        ("UPSAMPLE", "Upsample"),
    ],
)
def test_v1_types_have_new_names(old: str, new: str) -> None:
    (layer,) = upgraded(f"layers {{ type: {old} }}")
    assert layer.str("type", "") == new


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("layers { type: CONVOLUTON }", "`type` cannot be CONVOLUTON; did you mean CONVOLUTION?"),
        ("layers { type: 'CONVOLUTION' }", "unquoted"),
        ("layers { type: 40 }", "must be one of"),
        ("layers { name: 'x' }", "`type` is missing"),
        ("layers { layer { type: 'konv' } }", "`type` cannot be konv; did you mean conv?"),
        ("layers { layer { type: conv } }", "must be a quoted string"),
        ("layers { layer { name: 'x' } }", "`type` is missing"),
        ("layers { layer: 1 }", "must be a message"),
        ("layers { layer { type: 'padding' } top: 'x' }", "takes one blob and makes one"),
    ],
)
def test_unknown_types_are_refused(text: str, reason: str) -> None:
    assert reason in failure(text)


def test_v0_layers_become_current_ones() -> None:
    same(
        "layers { bottom: 'x' top: 'y' layer { name: 'c' type: 'conv' num_output: 8 kernelsize: 3 "
        "pad: 1 stride: 2 group: 4 biasterm: false weight_filler { type: 'gaussian' } "
        "bias_filler { value: 1 } blobs_lr: 1. blobs_lr: 2. weight_decay: 1. weight_decay: 0. } }",
        "layer { bottom: 'x' top: 'y' name: 'c' type: 'Convolution' convolution_param { "
        "num_output: 8 kernel_size: 3 pad: 1 stride: 2 group: 4 bias_term: false "
        "weight_filler { type: 'gaussian' } bias_filler { value: 1 } } "
        "param { lr_mult: 1. decay_mult: 1. } param { lr_mult: 2. decay_mult: 0. } }",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "type: 'innerproduct' num_output: 3 biasterm: true",
            "type: 'InnerProduct' inner_product_param { num_output: 3 bias_term: true }",
        ),
        (
            "type: 'pool' pool: AVE kernelsize: 3 stride: 2",
            "type: 'Pooling' pooling_param { pool: AVE kernel_size: 3 stride: 2 }",
        ),
        (
            "type: 'lrn' local_size: 3 alpha: 1 beta: 2 k: 3",
            "type: 'LRN' lrn_param { local_size: 3 alpha: 1 beta: 2 k: 3 }",
        ),
        (
            "type: 'dropout' dropout_ratio: 0.3",
            "type: 'Dropout' dropout_param { dropout_ratio: 0.3 }",
        ),
        (
            "type: 'concat' concat_dim: 1",
            "type: 'Concat' concat_param { concat_dim: 1 }",
        ),
        (
            "type: 'data' source: 's' batchsize: 2 meanfile: 'm' cropsize: 3 mirror: true scale: 2",
            "type: 'Data' data_param { source: 's' batch_size: 2 } transform_param { "
            "mean_file: 'm' crop_size: 3 mirror: true scale: 2 }",
        ),
        (
            "type: 'images' source: 's' shuffle_images: true new_height: 4",
            "type: 'ImageData' image_data_param { source: 's' shuffle: true new_height: 4 }",
        ),
        (
            "type: 'window_data' det_fg_threshold: 1 det_crop_mode: 'warp'",
            "type: 'WindowData' window_data_param { fg_threshold: 1 crop_mode: 'warp' }",
        ),
        ("type: 'softmax_loss'", "type: 'SoftmaxWithLoss'"),
        ("type: 'relu' pad: 1", "type: 'ReLU' pad: 1"),
    ],
)
def test_v0_parameters_move_into_messages(old: str, new: str) -> None:
    same(f"layers {{ layer {{ {old} }} }}", f"layer {{ {new} }}")


PADDED = "layers { layer { name: 'p' type: 'padding' pad: 2 } bottom: 'x' top: 'p' }"


@pytest.mark.parametrize(("kind", "param"), [("conv", "convolution"), ("pool", "pooling")])
def test_v0_padding_merges_into_the_layer_behind_it(kind: str, param: str) -> None:
    behind = f"layer {{ type: '{kind}' pad: 1 kernelsize: 3 }} bottom: 'p' top: 'y'"
    (layer,) = upgraded(f"{PADDED} layers {{ {behind} }}")
    assert layer.strs("bottom") == ["x"]
    assert layer.message(f"{param}_param").int("pad", 0) == 2
    assert layer.message(f"{param}_param").int("kernel_size", 0) == 3


def test_v0_padding_serves_several_layers_until_its_blob_is_made_anew() -> None:
    conv = "layers { layer { type: 'conv' } bottom: 'p' top: '%s' } "
    layers = upgraded(PADDED + conv % "a" + conv % "p" + conv % "c")
    assert [layer.strs("bottom") for layer in layers] == [["x"], ["x"], ["p"]]
    pads = [layer.message("convolution_param").int("pad", 0) for layer in layers]
    assert pads == [2, 2, 0]


@pytest.mark.parametrize(
    "behind",
    ["layer { type: 'relu' } bottom: 'p'", "layer { type: 'conv' } bottom: 'p' bottom: 'q'"],
)
def test_v0_padding_before_anything_else_is_refused(behind: str) -> None:
    assert "can follow padding" in failure(f"{PADDED} layers {{ {behind} }}")


def test_what_is_done_to_images_moves_out_of_the_data() -> None:
    same(
        "layers { type: DATA data_param { source: 's' scale: 0.5 crop_size: 4 mirror: true } "
        "transform_param { mean_file: 'm' } }",
        "layer { type: 'Data' data_param { source: 's' } "
        "transform_param { scale: 0.5 crop_size: 4 mirror: true mean_file: 'm' } }",
    )


def test_values_keep_their_line() -> None:
    (layer,) = upgraded("layers {\nlayer {\ntype: 'conv'\nkernelsize:\n 3 } }")
    assert layer.message("convolution_param").need("kernel_size").line == 5
    assert layer.need("type").line == 3
    assert layer.line == 1


@pytest.mark.shared
def test_lenet_is_the_same_in_two_syntaxes(shared: Path) -> None:
    nets = shared / "caffe" / "nets"
    current = read_network(nets / "bvlc_caffe/examples/mnist/lenet.prototxt")
    old = read_network(nets / "bvlc_caffe_v1_syntax/examples/mnist/lenet.prototxt")
    assert len(old.layers) == 8
    for one, other in zip(old.layers, [*current.layers][1:], strict=True):
        for param in ("convolution_param", "inner_product_param", "pooling_param", "param"):
            assert one.fields.messages(param) == other.fields.messages(param)
        assert (one.name, one.type) == (other.name, other.type)
        assert (one.bottoms, one.tops) == (other.bottoms, other.tops)


@pytest.mark.shared
def test_caffenet_is_the_same_in_two_syntaxes(shared: Path) -> None:
    nets = shared / "caffe" / "nets"
    current = read_network(nets / "bvlc_caffe/models/bvlc_reference_caffenet/deploy.prototxt")
    old = read_network(nets / "bvlc_caffe_v0_syntax/examples/imagenet/imagenet_deploy.prototxt")
    for one, other in zip(old.layers, [*current.layers][1:], strict=True):
        assert (one.name, one.type, one.tops) == (other.name, other.type, other.tops)
        for name in ("convolution_param", "pooling_param", "lrn_param", "inner_product_param"):
            for key in ("num_output", "kernel_size", "pad", "stride", "group", "local_size"):
                ours, theirs = one.fields.message(name), other.fields.message(name)
                assert ours.ints(key) == theirs.ints(key)

"""Whole networks: names, in-place layers, parameters, what stays out of the graph, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from caffe_run import imported, random, run

import irprune
from irprune.errors import IrpruneError

NET = """name: "small"
input: "data" input_shape { dim: 2 dim: 3 dim: 6 dim: 6 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" module: "stem"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "score"
        inner_product_param { num_output: 5 weight_filler { type: "msra" } } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
layer { name: "top5" type: "Accuracy" bottom: "score" bottom: "label" top: "top5"
        accuracy_param { top_k: 5 } }
"""


def data(kind: str, body: str) -> str:
    head = f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {body} }}'
    return head + NET[NET.index("\nlayer") :] + LOSS


def nodes(found: ir.Model) -> dict[str, ir.Node]:
    return {node.name or "": node for node in found.graph}


def test_names_metadata_and_outputs() -> None:
    found = imported(NET)
    graph = found.model.ir.graph
    assert graph.name == "small"
    assert [node.name for node in graph] == ["conv", "relu", "ip/flatten", "ip"]
    assert [node.outputs[0].name for node in graph] == [
        "conv@conv",
        "conv",
        "ip/flatten:0",
        "score",
    ]
    assert [*graph.initializers] == ["conv.weight", "conv.bias", "ip.weight", "ip.bias"]
    assert [(value.name, value.shape) for value in graph.outputs] == [("score", ir.Shape([2, 5]))]
    conv, flatten = nodes(found.model.ir)["conv"], nodes(found.model.ir)["ip/flatten"]
    assert conv.metadata_props == {
        "irprune.layer": "conv",
        "irprune.source": "net.prototxt:3",
        "irprune.module": "stem",
    }
    assert flatten.metadata_props == {"irprune.layer": "ip", "irprune.source": "net.prototxt:7"}
    assert found.values == {
        "": "data",
        "conv": "conv@conv",
        "relu": "conv",
        "drop": "conv",
        "ip": "score",
    }


def test_an_input_changed_in_place_keeps_its_name() -> None:
    text = """input: "data" input_shape { dim: 1 dim: 2 }
        layer { name: "scale" type: "Power" bottom: "data" top: "data" power_param { scale: 2 } }
        layer { name: "neg" type: "Power" bottom: "data" top: "y" power_param { scale: -1 } }"""
    found = imported(text)
    assert [value.name for value in found.model.ir.graph.inputs] == ["data"]
    np.testing.assert_allclose(run(found, {"data": np.ones((1, 2))})["y"], [[-2, -2]])


def test_an_output_that_is_another_blobs_value_has_its_own_name() -> None:
    text = NET + 'layer { name: "s" type: "Split" bottom: "score" top: "a" top: "b" }'
    y = run(imported(text), {"data": random(2, 3, 6, 6)})
    assert set(y) == {"a", "b"}
    np.testing.assert_array_equal(y["a"], y["b"])


def test_dynamic_batch() -> None:
    found = imported(NET, dynamic_batch=True)
    assert str(found.model.ir.graph.inputs[0].shape) == "[N,3,6,6]"
    assert str(found.model.ir.graph.outputs[0].shape) == "[N,5]"
    x = random(7, 3, 6, 6)
    y = run(found, {"data": x})["score"]
    assert y.shape == (7, 5)
    np.testing.assert_allclose(run(imported(NET), {"data": x[:2]})["score"], y[:2], rtol=1e-5)


def test_a_batch_that_a_layer_states_is_not_dynamic() -> None:
    more = 'layer { name: "r" type: "Reshape" bottom: "score" top: "r" reshape_param { shape {'
    states = NET + more + " dim: 1 dim: -1 dim: 5 } } }"
    keeps = NET + more + " dim: 0 dim: -1 dim: 5 } } }"
    assert str(imported(keeps, dynamic_batch=True).model.ir.graph.outputs[0].shape) == "[N,1,5]"
    with pytest.raises(IrpruneError, match="a layer behind which r lies states it"):
        imported(states, dynamic_batch=True)


def test_fillers_follow_the_seed() -> None:
    def weight(seed: int) -> np.ndarray:
        tensor = imported(NET, seed=seed).model.ir.graph.initializers["conv.weight"].const_value
        assert tensor is not None
        return tensor.numpy()

    assert np.array_equal(weight(3), weight(3))
    assert not np.array_equal(weight(3), weight(4))


def test_weights_without_filler_are_drawn_and_said() -> None:
    said: list[str] = []
    bare = NET.replace('weight_filler { type: "xavier" }', "")
    found = imported(bare, warn=said.append)
    tensor = found.model.ir.graph.initializers["conv.weight"].const_value
    assert tensor is not None and tensor.numpy().std() > 0.1
    assert said == ["1 layers have no weight_filler: their weights are drawn like msra: conv"]


SHARING = """input: "a" input: "b" input_shape { dim: 1 dim: 3 } input_shape { dim: 1 dim: 3 }
layer { name: "one" type: "InnerProduct" bottom: "a" top: "y" param { name: "w" }
        inner_product_param { num_output: 2 bias_term: false weight_filler { type: "msra" } } }
layer { name: "two" type: "InnerProduct" bottom: "b" top: "z" param { name: "w" }
        inner_product_param { num_output: 2 bias_term: false } }
"""


def test_parameters_shared_by_name() -> None:
    found = imported(SHARING)
    assert [*found.model.ir.graph.initializers] == ["one.weight"]
    x = random(1, 3)
    y = run(found, {"a": x, "b": x})
    np.testing.assert_array_equal(y["y"], y["z"])
    with pytest.raises(IrpruneError, match=r"layer two .*shares the blob 'w' of shape \[2, 3\]"):
        imported(SHARING.replace("num_output: 2 bias_term: false }", "num_output: 4 }"))


def blobs() -> dict[str, list[np.ndarray]]:
    return {
        "conv": [random(4, 3, 3, 3), random(4)],
        "ip": [random(1, 1, 5, 64), random(1, 1, 1, 5)],
    }


def test_weights_with_legacy_shapes() -> None:
    found = imported(NET, blobs())
    initializers = found.model.ir.graph.initializers
    assert initializers["ip.weight"].shape == ir.Shape([5, 64])
    x = random(2, 3, 6, 6)
    stacked = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
    conv = np.einsum("nchwij,mcij->nmhw", stacked, blobs()["conv"][0])
    hidden = np.maximum(conv + blobs()["conv"][1].reshape(4, 1, 1), 0).reshape(2, -1)
    expected = hidden @ blobs()["ip"][0][0, 0].T + blobs()["ip"][1].ravel()
    np.testing.assert_allclose(run(found, {"data": x})["score"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "arrays", "reason"),
    [
        ("conv", [random(4, 2, 3, 3), random(4)], r"layer conv .*shape \[4, 2, 3, 3\], the proto"),
        ("conv", [random(4, 3, 3, 3)], r"layer conv .*has 1 blobs in the weights, .*needs more"),
        ("ip", [*blobs()["ip"], random(1)], r"layer ip .*has 3 blobs in the weights, .*needs 2"),
        ("relu", [random(4)], r"layer relu .*has 1 blobs in the weights, the prototxt needs 0"),
    ],
)
def test_weights_that_do_not_fit(name: str, arrays: list[np.ndarray], reason: str) -> None:
    with pytest.raises(IrpruneError, match=reason):
        imported(NET, blobs() | {name: arrays})


def test_weights_of_another_network() -> None:
    with pytest.raises(IrpruneError, match="the weights have no layer of this network"):
        imported(NET, {"other": [random(3)]})


def test_weights_that_lack_or_add_a_layer() -> None:
    said: list[str] = []
    imported(NET, {"conv": blobs()["conv"], "old": [random(2)]}, warn=said.append)
    assert said == [
        "1 layers are not in the weights: their fillers draw the parameters: ip",
        "1 layers of the weights are not used: old",
    ]


@pytest.mark.parametrize(
    ("kind", "body", "shape", "lacking"),
    [
        (
            "Data",
            "data_param { batch_size: 4 } transform_param { crop_size: 8 }",
            [4, 3, 8, 8],
            "channels",
        ),
        ("Data", "data_param { batch_size: 4 }", [4, 3, 32, 32], "channels, height, width"),
        (
            "ImageData",
            "image_data_param { batch_size: 2 new_height: 7 new_width: 9 }",
            [2, 3, 7, 9],
            "",
        ),
        (
            "MemoryData",
            "memory_data_param { batch_size: 2 channels: 1 height: 5 width: 4 }",
            [2, 1, 5, 4],
            "",
        ),
        (
            "HDF5Data",
            "hdf5_data_param { batch_size: 2 }",
            [2, 3, 32, 32],
            "channels, height, width",
        ),
        ("WindowData", "window_data_param { batch_size: 2 crop_size: 9 }", [2, 3, 9, 9], ""),
    ],
)
def test_data_layers_become_inputs(kind: str, body: str, shape: list[int], lacking: str) -> None:
    said: list[str] = []
    found = imported(data(kind, body), warn=said.append)
    graph = found.model.ir.graph
    assert [(value.name, value.shape) for value in graph.inputs] == [("data", ir.Shape(shape))]
    assert [value.name for value in graph.outputs] == ["score"]
    size = "x".join(map(str, shape))
    expected = [f"d ({kind}): chose {size} for data: the file does not state {lacking}"]
    assert said == (expected if lacking else [])


def test_shapes_may_be_given() -> None:
    found = imported(data("Data", ""), shapes={"data": (1, 3, 5, 9)})
    assert found.model.ir.graph.inputs[0].shape == ir.Shape([1, 3, 5, 9])
    found = imported(NET, shapes={"data": (1, 3, 5, 9)})
    assert found.model.ir.graph.inputs[0].shape == ir.Shape([1, 3, 5, 9])
    with pytest.raises(IrpruneError, match="there is no input dta to give a shape; inputs: data"):
        imported(NET, shapes={"dta": (1, 3, 5, 9)})


def test_losses_and_data_stay_as_training_metadata() -> None:
    found = imported(data("Data", 'data_param { source: "lmdb" batch_size: 4 }'))
    assert [one["name"] for one in found.training] == ["d", "loss", "top5"]
    assert found.training[0]["fields"] == {"data_param": [{"source": ["lmdb"], "batch_size": [4]}]}
    assert found.training[2]["fields"] == {"accuracy_param": [{"top_k": [5]}]}
    stored = found.model.ir.metadata_props["irprune.caffe.training"]
    assert json.loads(stored) == found.training


def test_dummy_data_is_an_input_if_random_else_a_constant() -> None:
    text = """layer {{ name: "d" type: "DummyData" top: "x" dummy_data_param {{
        shape {{ dim: 1 dim: 2 }} data_filler {{ {} }} }} }}
        layer {{ name: "p" type: "Parameter" top: "w"
            parameter_param {{ shape {{ dim: 1 dim: 2 }} }} }}
        layer {{ name: "s" type: "Eltwise" bottom: "x" bottom: "w" top: "y" }}"""
    found = imported(text.format('type: "gaussian"'))
    assert [value.name for value in found.model.ir.graph.inputs] == ["x"]
    found = imported(text.format("value: 3"), {"p": [np.array([[1, 2]], np.float32)]})
    np.testing.assert_allclose(run(found, {})["y"], [[4, 5]])


HEADS = """
layer { name: "prior" type: "PriorBox" bottom: "conv" bottom: "data" top: "prior" }
layer { name: "flat" type: "Flatten" bottom: "prior" top: "flat" }
layer { name: "roi" type: "Python" bottom: "conv" bottom: "score" top: "boxes"
        python_param { module: "rpn" layer: "Proposal" } }
layer { name: "out" type: "DetectionOutput" bottom: "score" bottom: "flat" top: "out" }
"""


def test_heads_are_errors_that_say_how_to_go_on() -> None:
    with pytest.raises(IrpruneError, match="layer prior .*ONNX has no counterpart") as caught:
        imported(NET + HEADS)
    assert "--end-at-heads" in str(caught.value)


def test_the_graph_may_end_at_heads() -> None:
    said: list[str] = []
    found = imported(NET + HEADS, end_at_heads=True, warn=said.append)
    assert [value.name for value in found.model.ir.graph.outputs] == ["conv", "score"]
    assert [line.partition(" (")[0] for line in found.ended] == ["prior", "flat", "roi", "out"]
    assert said[0].startswith("the graph ends before prior (PriorBox, line 10): ONNX has no")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"ReLU"', '"RelU"', "unknown layer type; did you mean ReLU"),
        ("num_output: 4", "", "`num_output` is missing"),
        ('bottom: "conv" top: "score"', 'bottom: "con" top: "score"', "did you mean conv"),
        ("kernel_size: 3", "kernel_size: 9", "9 x 9 does not fit an image of 6 x 6"),
        ("kernel_size: 3", "kernel_size: 3 group: 2", "3 channels, 4 outputs and group 2"),
        ('top: "score"', 'top: "score" top: "more"', "makes 1 tops, the file names 2"),
        ('"ReLU" bottom: "conv"', '"ReLU" bottom: "conv" bottom: "data"', "takes 1 bottoms, has 2"),
        ("num_output: 5", "num_output: 999999999999", "too large"),
    ],
)
def test_bad_networks_name_the_layer_and_the_line(old: str, new: str, reason: str) -> None:
    assert old in NET
    with pytest.raises(IrpruneError, match=reason) as caught:
        imported(NET.replace(old, new))
    assert "net.prototxt:" in str(caught.value)


def test_unknown_fields_are_warned_about_with_their_line() -> None:
    said: list[str] = []
    imported(NET.replace("num_output: 4", "num_output: 4 sparkle: 2"), warn=said.append)
    assert said == ["net.prototxt:4: conv (Convolution): unknown field `sparkle`"]


def test_from_caffe_prunes(tmp_path: Path) -> None:
    path = tmp_path / "small.prototxt"
    path.write_text(NET)
    model = irprune.from_caffe(path)
    result = irprune.run("normalize, prune{ratio=0.5 scope=local}, compact, verify", model)
    weight = result.model.ir.graph.initializers["conv.weight"]
    assert weight.shape == ir.Shape([2, 3, 3, 3])
    assert {proof["verdict"] for proof in result.report["proof"]} == {"proved"}

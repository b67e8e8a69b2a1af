"""Networks: inputs, the rules of phases, shared parameters, modules, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError
from irprune.frontends.caffe.network import Network, Param, network_of, read_network
from irprune.frontends.caffe.text import parse

INPUT = "name: 'Net' input: 'data' input_dim: [1, 3, 8, 9]\n"


def network(text: str, **options: Any) -> Network:
    return network_of(parse(text, "net.prototxt"), **options)


def failure(text: str, **options: Any) -> str:
    with pytest.raises(IrpruneError) as caught:
        network(text, **options)
    return str(caught.value)


def layer(name: str, bottom: str = "data", top: str = "", more: str = "") -> str:
    return (
        f"layer {{ name: '{name}' type: 'ReLU' bottom: '{bottom}' top: '{top or name}' {more} }}\n"
    )


def test_a_layer_says_what_it_is() -> None:
    net = network(
        INPUT + "layer {\n name: 'conv1' type: 'Convolution' bottom: 'data' top: 'conv1'\n"
        " module: 'stem' param { name: 'w' lr_mult: 1 } param { lr_mult: 2 }\n"
        " convolution_param { num_output: 4 } }"
    )
    assert (net.name, net.inputs, net.file) == ("Net", [("data", (1, 3, 8, 9))], "net.prototxt")
    (conv,) = net.layers
    assert (conv.name, conv.type, conv.module, conv.line) == ("conv1", "Convolution", "stem", 2)
    assert (conv.bottoms, conv.tops) == (["data"], ["conv1"])
    assert conv.params == [Param("w", lr_mult=1), Param(lr_mult=2)]
    assert conv.fields.message("convolution_param").int("num_output", 0) == 4
    assert "net.prototxt:2:7: layer conv1 (Convolution): too wide" in str(conv.error("too wide"))


def test_layers_without_a_name_go_by_their_top_or_type() -> None:
    net = network(
        INPUT + "layer { type: 'ReLU' bottom: 'data' top: 'x' } layer { type: 'Silence' }"
    )
    assert [one.name for one in net.layers] == ["x", "Silence"]


def test_layers_in_place_keep_one_name() -> None:
    net = network(INPUT + layer("a", "data", "data"))
    assert (net.layers[0].bottoms, net.layers[0].tops) == (["data"], ["data"])


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("input: 'a' input_shape { dim: 1 dim: 2 }", [("a", (1, 2))]),
        (
            "input: 'a' input_shape { dim: [1, 2] } input: 'b' input_shape {}",
            [("a", (1, 2)), ("b", ())],
        ),
        (
            "input: 'a' input: 'b' input_dim: [1, 2, 3, 4, 5, 6, 7, 8]",
            [("a", (1, 2, 3, 4)), ("b", (5, 6, 7, 8))],
        ),
        ("", []),
    ],
)
def test_inputs_have_shapes(text: str, inputs: list[tuple[str, tuple[int, ...]]]) -> None:
    assert network(text + " layer { type: 'DummyData' top: 'x' }").inputs == inputs


def test_the_caller_may_declare_inputs() -> None:
    net = network(INPUT + layer("a", "extra"), inputs={"extra": [2, 3], "data": (4, 3, 8, 9)})
    assert net.inputs == [("data", (4, 3, 8, 9)), ("extra", (2, 3))]


@pytest.mark.parametrize(
    ("rule", "phase", "level", "stages", "stands"),
    [
        ("", "TEST", 0, [], True),
        ("include { phase: TEST }", "TEST", 0, [], True),
        ("include { phase: TEST }", "TRAIN", 0, [], False),
        ("include: { phase: 0 }", "TRAIN", 0, [], True),
        ("exclude { phase: TEST }", "TEST", 0, [], False),
        ("exclude { phase: TEST }", "TRAIN", 0, [], True),
        ("include { phase: TRAIN } include { phase: TEST stage: 's' }", "TEST", 0, ["s"], True),
        ("include { phase: TRAIN } include { phase: TEST stage: 's' }", "TEST", 0, [], False),
        ("exclude { phase: TRAIN } exclude { stage: 's' }", "TEST", 0, ["s"], False),
        ("include { stage: 's' stage: 't' }", "TEST", 0, ["s"], False),
        ("include { stage: 's' stage: 't' }", "TEST", 0, ["t", "s", "u"], True),
        ("include { not_stage: 's' }", "TEST", 0, ["s"], False),
        ("include { not_stage: 's' }", "TEST", 0, ["t"], True),
        ("include { min_level: 1 }", "TEST", 0, [], False),
        ("include { min_level: 1 max_level: 2 }", "TEST", 2, [], True),
        ("include { min_level: 1 max_level: 2 }", "TEST", 3, [], False),
        ("exclude {}", "TEST", 0, [], False),
    ],
)
def test_rules_say_which_layers_stand(
    rule: str, phase: str, level: int, stages: list[str], stands: bool
) -> None:
    net = network(INPUT + layer("a", more=rule), phase=phase, level=level, stages=stages)
    assert [one.name for one in net.layers] == (["a"] if stands else [])
    assert not list(net.unread())


def test_the_network_may_add_stages() -> None:
    text = (
        INPUT
        + "state { phase: TRAIN level: 3 stage: 's' }"
        + layer("a", more="include { stage: 's' }")
    )
    assert len(network(text).layers) == 1


def test_fields_nobody_asked_for_are_told_once() -> None:
    net = network(
        INPUT
        + "fancy: 1\n"
        + layer("a", more="relu_param { negative_slope: 0.1 slop: 1 } loss_weight: 1")
        + layer("b", more="extra: 1 include { phase: TEST pase: TEST }")
        + layer("c", more="gone: 1 include { phase: TRAIN }")
    )
    net.layers[0].fields.message("relu_param").float("negative_slope", 0.0)
    told = [(one.name, one.line) for one in net.unread()]
    assert told == [("fancy", 2), ("slop", 3), ("extra", 4), ("pase", 4)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: 'x'", "the network has no layers"),
        (INPUT + "layer: 3", "`layer` must be a message"),
        (INPUT + "layer { name: 'a' }", "`type` is missing"),
        (INPUT + "layer { type: ReLU }", "`type` must be a quoted string, got `ReLU`"),
        (INPUT + "layer { type: 'ReLU' type: 'ReLU' }", "`type` is given twice"),
        (INPUT + "layer { type: 'ReLU' bottom: data }", "`bottom` must be a quoted string"),
        (INPUT + layer("a", "dta"), "no layer before this one makes `dta`; did you mean data?"),
        (INPUT + layer("a", "zz"), "makes `zz`; give its shape if it is an input"),
        (INPUT + layer("a", "b") + layer("b"), "makes `b`; one after it does, or one that stands"),
        (INPUT + layer("b", more="include { phase: TRAIN }") + layer("a", "b"), "at another phase"),
        (INPUT + layer("a") + layer("a"), "`a` is made twice"),
        (INPUT + layer("a", more="include {} exclude {}"), "rules to include or to exclude"),
        (INPUT + layer("a", more="include { phase: TSET }"), "did you mean TEST?"),
        (INPUT + layer("a") + "layers { type: RELU }", "cannot stand in one network"),
        ("input: 'a' input_dim: [1, 2, 3]" + layer("b", "a"), "1 inputs have 3 `input_dim`"),
        ("input: 'a'" + layer("b", "a"), "1 inputs have 0 shapes"),
        ("input: 'a' input_dim: [1, 1, 1, 1]" * 2 + layer("b", "a"), "`a` is declared twice"),
        ("input_shape {}" + layer("b", "a"), "0 inputs have 1 shapes"),
        ("input: 'a' input_shape { dim: 0 }" + layer("b", "a"), "cannot have 0 positions"),
        ("input: 'a' input_shape { dim: 2147483648 }" + layer("b", "a"), "cannot have 2147483648"),
        ("input: 'a' input_shape { dim: 1.5 }" + layer("b", "a"), "must be an integer"),
    ],
)
def test_bad_networks_are_refused_at_the_spot(text: str, reason: str) -> None:
    message = failure(text)
    assert reason in message
    assert message.startswith("net.prototxt:")
    assert message.endswith("^")


def test_a_phase_must_be_one() -> None:
    assert "there is no phase 'test'; it is TRAIN or TEST" in failure(INPUT, phase="test")


FIELDS = st.sampled_from(
    [
        *("name: 'x'", "type: 'ReLU'", "type: RELU", "type: 5", "bottom: 'a'", "top: 'a'"),
        *("layer {", "layers {", "}", "include {", "phase: TEST", "input: 'a'", "input_dim: 3"),
        *("input_shape {", "dim: 2", "param {", "param: 'w'", "blobs_lr: 1", "pad: 1", "module: 3"),
        *("type: 'conv'", "type: 'padding'", "top: 'b'", "bottom: 'b'", "state {", "layer: 1"),
    ]
)


@given(st.lists(FIELDS, max_size=40).map(" ".join))
def test_no_network_makes_the_reader_fail_otherwise(text: str) -> None:
    text += "}" * (text.count("{") - text.count("}"))
    try:
        net = network(text)
    except IrpruneError as error:
        assert str(error)
    else:
        list(net.unread())


@pytest.mark.shared
def test_every_shared_network_is_read(shared: Path) -> None:
    phases = {"MobileNetSSD_train": "TRAIN", "mnist_autoencoder": "TRAIN"}
    undeclared = {"deeplab_resnet34": {"data": (1, 3, 64, 64)}}  # the file leaves its input out
    paths = [p for p in (shared / "caffe").rglob("*.prototxt") if "solver" not in p.name]
    assert len(paths) > 65
    for path in paths:
        net = read_network(
            path, phases.get(path.stem, "TEST"), inputs=undeclared.get(path.stem, {})
        )
        assert net.layers
        assert all(one.type[0].isupper() for one in net.layers)

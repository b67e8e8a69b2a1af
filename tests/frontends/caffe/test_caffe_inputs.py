"""Layers that make data: Input, DummyData and Parameter; and Silence, which takes it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from caffe_run import close, imported, random, run

from irprune.errors import IrpruneError

ADD = 'layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "y" }'


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ("shape { dim: 2 dim: 3 }", ([2, 3], [2, 3])),
        ("shape { dim: 2 dim: 3 } shape { dim: 4 }", ([2, 3], [4])),
    ],
)
def test_input_layers(shapes: str, expected: tuple[list[int], list[int]]) -> None:
    text = f"""layer {{ name: "i" type: "Input" top: "a" top: "b" input_param {{ {shapes} }} }}
        layer {{ name: "m" type: "Power" bottom: "a" top: "c" power_param {{ scale: 2 }} }}
        layer {{ name: "n" type: "Power" bottom: "b" top: "d" power_param {{ scale: 3 }} }}"""
    found = imported(text)
    inputs = found.model.ir.graph.inputs
    assert [(v.name, v.shape) for v in inputs] == [
        (name, ir.Shape(shape)) for name, shape in zip("ab", expected, strict=True)
    ]
    a, b = random(*expected[0]), random(*expected[1], seed=1)
    y = run(found, {"a": a, "b": b})
    close(y["c"], 2 * a)
    close(y["d"], 3 * b)


@pytest.mark.parametrize(
    ("body", "numbers"),
    [
        ("", (0, 0)),
        ("data_filler {}", (0, 0)),
        ("data_filler { value: 3 }", (3, 3)),
        ("data_filler { value: 3 } data_filler { type: 'constant' value: -1 }", (3, -1)),
    ],
)
@pytest.mark.parametrize(
    "shape", ["shape { dim: 2 dim: 3 dim: 1 dim: 1 }", "num: 2 channels: 3 height: 1 width: 1"]
)
def test_constant_dummy_data(shape: str, body: str, numbers: tuple[int, int]) -> None:
    text = f"""layer {{ name: "d" type: "DummyData" top: "a" top: "b"
        dummy_data_param {{ {shape} {body} }} }}
        layer {{ name: "n" type: "Power" bottom: "b" top: "c" power_param {{ scale: 10 }} }}
        layer {{ name: "s" type: "Eltwise" bottom: "a" bottom: "c" top: "y" }}"""
    found = imported(text)
    assert not found.model.ir.graph.inputs
    close(run(found, {})["y"], np.full((2, 3, 1, 1), numbers[0] + 10 * numbers[1]))


def test_random_dummy_data_is_a_graph_input() -> None:
    text = """layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param {
        num: 2 channels: 3 height: 4 width: 5 num: 2 channels: 3 height: 4 width: 5
        data_filler { value: 1 } data_filler { type: "uniform" } } }"""
    found = imported(text + ADD)
    inputs = found.model.ir.graph.inputs
    assert [(v.name, v.shape) for v in inputs] == [(n, ir.Shape([2, 3, 4, 5])) for n in "ab"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("shape { dim: 1 } shape { dim: 2 } shape { dim: 3 }", "has 2 tops and 3 shapes"),
        ("num: 1 channels: 2 height: 3", "must be given equally often"),
        ("shape { dim: 0 }", r"cannot make data of the shape \[0\]"),
        ("shape { dim: 1 }" + " data_filler { value: 1 }" * 3, "has 2 tops and 3 fillers"),
    ],
)
def test_bad_dummy_data(body: str, reason: str) -> None:
    text = (
        f'layer {{ name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param {{ {body} }} }}'
    )
    with pytest.raises(IrpruneError, match=reason):
        imported(text + ADD)


PARAMETER = """input: "x" input_shape { dim: 2 dim: 3 }
    layer { name: "p" type: "Parameter" top: "w"
            parameter_param { shape { dim: 2 dim: 3 } } }
    layer { name: "s" type: "Eltwise" bottom: "x" bottom: "w" top: "y"
            eltwise_param { operation: PROD } }"""


def test_parameters_are_initializers() -> None:
    x, w = random(2, 3), random(2, 3, seed=1)
    found = imported(PARAMETER, {"p": [w]})
    assert [*found.model.ir.graph.initializers] == ["p.weight"]
    close(run(found, {"x": x})["y"], x * w)
    with pytest.raises(IrpruneError, match=r"cannot make parameters of the shape \[0, 3\]"):
        imported(PARAMETER.replace("dim: 2 dim: 3 } } }", "dim: 0 dim: 3 } } }"))


def test_vectors_of_parameters_start_at_zero() -> None:
    text = """input: "x" input_shape { dim: 3 }
        layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 3 } } }
        layer { name: "s" type: "Eltwise" bottom: "x" bottom: "w" top: "y" }"""
    x = random(3)
    close(run(imported(text), {"x": x})["y"], x)


def test_what_silence_takes_is_no_output() -> None:
    text = """input: "x" input_shape { dim: 1 dim: 4 }
        layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" }
        layer { name: "n" type: "Power" bottom: "a" top: "y" power_param { power: 2 } }"""
    assert [*run(imported(text), {"x": random(1, 4)})] == ["b", "y"]
    quiet = text + 'layer { name: "q" type: "Silence" bottom: "b" }'
    x = random(1, 4)
    y = run(imported(quiet), {"x": x})
    assert [*y] == ["y"]
    close(y["y"], x[:, :2] ** 2)

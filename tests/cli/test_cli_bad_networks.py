"""Caffe networks and weights that do not fit: one message with the place, exit 2, no output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from refusal import Cli, refused, refused_at

NET = """name: "two"
input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer {
  name: "one" type: "Convolution" bottom: "data" top: "one"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "msra" } }
}
layer {
  name: "two" type: "Convolution" bottom: "one" top: "two"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } }
}
"""
PIPELINE = "normalize, prune{ratio=0.5 scope=local}, compact"
RUN = ("run", PIPELINE, "net.prototxt", "-o", "small.onnx")
OUTPUTS = ("--plan", "p.json", "--base", "b.onnx", "--report", "r.json")


@pytest.fixture
def net(tmp_path: Path, cli: Cli) -> Path:
    path = Path("net.prototxt")
    path.write_text(NET)
    return path


@pytest.mark.parametrize(
    ("old", "new", "place", "reason"),
    [
        # unbalanced braces
        ("", "", (7, 7), "this `{` is never closed"),
        ('"one"\n  conv', '"one" }\n  conv', (6, 1), "unexpected `}`: expected a field name"),
        ("dim: 8 }", "dim: 8 >", (2, 57), "expected `}`"),
        # other text
        ('name: "one"', 'name: "one', (4, 32), "expected `:` or `{` after"),
        ('"msra"', '"msra', (5, 74), "the string never ends"),
        ('name: "one" ', 'name "one" ', (4, 8), "expected `:` or `{` after `name`"),
        ("num_output: 8", "num_output: 8..", (5, 35), "not a number"),
        ("num_output: 8", "num_output: eight", (5, 35), "`num_output` must be an integer"),
        # unknown layer type
        ('"Convolution"', '"Convolutoin"', (3, 7), "layer one (Convolutoin): unknown layer type"),
        ('"Convolution"', "CONVOLUTION", (4, 21), "`type` must be a quoted string"),
        ('type: "Convolution" ', "", (3, 7), "`type` is missing"),
        # missing bottom
        ('bottom: "one"', 'bottom: "oen"', (8, 43), "no layer before this one makes `oen`"),
        ('bottom: "one" ', "", (7, 7), "layer two (Convolution): takes at least 1 bottoms, has 0"),
        ('bottom: "data"', 'bottom: "two"', (4, 43), "no layer before this one makes `two`"),
    ],
)
def test_a_bad_prototxt(
    cli: Cli, net: Path, old: str, new: str, place: tuple[int, int], reason: str
) -> None:
    assert old in NET  # or empty: the last brace goes
    net.write_text(NET.replace(old, new, 1) if old else NET[:-2])
    assert refused_at(cli, (net, *place), *RUN, *OUTPUTS).startswith(reason)
    for command in (["inspect", net], ["explain", net, "one.weight"]):
        assert refused_at(cli, (net, *place), *command).startswith(reason)


def test_a_close_name_is_offered(cli: Cli, net: Path) -> None:
    net.write_text(NET.replace('"Convolution"', '"Convolutoin"', 1))
    assert "did you mean Convolution?" in refused(cli, *RUN)
    net.write_text(NET.replace('bottom: "one"', 'bottom: "oen"'))
    assert "did you mean one?" in refused(cli, *RUN)


def test_an_empty_prototxt_and_a_missing_one(cli: Cli, net: Path) -> None:
    net.write_text("")
    assert refused(cli, *RUN).startswith(
        "error: net.prototxt:1:1: the network has no layers; is this a solver"
    )
    net.unlink()
    assert "net.prototxt: cannot read the file: No such file" in refused(cli, *RUN)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field of the protobuf wire format."""
    size, head = len(data), b""
    for value in (number << 3 | 2, size):
        while value > 127:
            head += bytes([value & 127 | 128])
            value >>= 7
        head += bytes([value])
    return head + data


def caffemodel(blobs: dict[str, Sequence[Sequence[int]]]) -> bytes:
    """A file of current layers with blobs of these shapes, all their numbers 0.5."""
    whole = b""
    for name, shapes in blobs.items():
        layer = field(1, name.encode())
        for shape in shapes:
            numbers = np.full(shape, 0.5, "<f4").tobytes()
            layer += field(7, field(7, field(1, bytes(shape))) + field(5, numbers))
        whole += field(100, layer)
    return whole


FITTING = {"one": [(8, 3, 3, 3), (8,)], "two": [(4, 8, 3, 3), (4,)]}
WEIGHTED = (*RUN, "--weights", "net.caffemodel", *OUTPUTS)


@pytest.mark.parametrize(
    ("layer", "shapes", "line", "reason"),
    [
        (
            "one",
            [(8, 4, 3, 3), (8,)],
            3,
            "layer one (Convolution): blob 0 of the weights has the shape [8, 4, 3, 3], the "
            "prototxt needs [8, 3, 3, 3]",
        ),
        (
            "two",
            [(4, 8, 3, 3), (5,)],
            7,
            "layer two (Convolution): blob 1 of the weights has the shape [5], the prototxt needs "
            "[4]",
        ),
        ("two", [(4, 8, 3, 3)], 7, "layer two (Convolution): has 1 blobs in the weights"),
        ("two", [(4, 8, 3, 3), (4,), (4,)], 7, "layer two (Convolution): has 3 blobs"),
    ],
)
def test_weights_of_other_shapes(
    cli: Cli, net: Path, layer: str, shapes: list[tuple[int, ...]], line: int, reason: str
) -> None:
    Path("net.caffemodel").write_bytes(caffemodel(FITTING | {layer: shapes}))
    assert refused_at(cli, (net, line, 7), *WEIGHTED).startswith(reason)


def test_weights_of_another_network(cli: Cli, net: Path) -> None:
    Path("net.caffemodel").write_bytes(caffemodel({"other": [(3,)]}))
    message = refused(cli, *WEIGHTED)
    assert message.startswith("error: net.prototxt: the weights have no layer of this network")


def test_a_caffemodel_cut_anywhere(cli: Cli, net: Path) -> None:
    data = caffemodel(FITTING)
    layers = [len(caffemodel(dict(list(FITTING.items())[:count]))) for count in range(3)]
    assert layers[-1] == len(data)
    path = Path("net.caffemodel")
    inspect = ("inspect", net, "--weights", path)

    def cut(size: int) -> Result:
        path.write_bytes(data[:size])
        return cli(*inspect)

    assert cut(len(data)).exit_code == 0
    for size in {*range(0, len(data), 23), *range(6), len(data) - 1} - {*layers}:
        path.write_bytes(data[:size])
        message = refused(cli, *inspect)
        assert message.startswith("error: net.caffemodel: "), message
        assert "truncated" in message and "(at byte " in message, message
    path.write_bytes(data[:-1])
    assert "truncated" in refused(cli, *WEIGHTED)
    # A file may end behind any layer; that the rest draws its numbers is said.
    assert "1 layers are not in the weights" in cut(layers[1]).stderr
    path.write_bytes(b"")
    assert "net.caffemodel: the file holds no layers" in refused(cli, *inspect)


@pytest.mark.parametrize("data", [None, b"\xff" * 9, b"# a text file\n", b"\x89HDF\r\n\x1a\n"])
def test_weights_that_are_no_caffemodel(cli: Cli, net: Path, data: bytes | None) -> None:
    if data is not None:
        Path("net.caffemodel").write_bytes(data)
    assert refused(cli, *WEIGHTED).startswith("error: net.caffemodel: ")

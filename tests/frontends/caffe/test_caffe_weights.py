"""Caffemodels: what Google's protobuf writes is read back, and damage is named, never a crash."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_schema import MESSAGES
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from irprune.errors import IrpruneError
from irprune.frontends.caffe.weights import blobs_of, read_caffemodel

Weights = dict[str, list[NDArray[np.float32]]]


def failure(data: bytes) -> str:
    with pytest.raises(IrpruneError) as caught:
        blobs_of(data, "net.caffemodel")
    assert str(caught.value).startswith("net.caffemodel: ")
    return str(caught.value)


def numbers(*shape: int) -> NDArray[np.float32]:
    return np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.float32).reshape(shape) / 8


def put(blob: Any, values: NDArray[np.float32], legacy: bool = False, double: bool = False) -> None:
    """Fill a Blob, or a LooseBlob, with values and their shape."""
    (blob.double_data if double else blob.data).extend(values.ravel().tolist())
    if legacy:
        blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - values.ndim) + values.shape
    else:
        blob.shape.SetInParent()
        blob.shape.dim.extend(values.shape)


def network(weights: Weights, syntax: str, legacy: bool = False, double: bool = False) -> bytes:
    """A serialised network that holds the weights, `syntax` one of current, V1 and V0."""
    net = MESSAGES["Net"](name="Net")
    for name, blobs in weights.items():
        layer = net.layer.add() if syntax == "current" else net.layers.add()
        layer.bottom.append("x")
        holder = layer.layer if syntax == "V0" else layer
        holder.name = name
        for values in blobs:
            put(holder.blobs.add(), values, legacy, double)
    data: bytes = net.SerializeToString()
    return data


def equal(read: Weights, written: Weights, legacy: bool = False) -> None:
    assert list(read) == [name for name, blobs in written.items() if blobs]
    for name, blobs in read.items():
        for ours, theirs in zip(blobs, written[name], strict=True):
            shape = (1,) * (4 - theirs.ndim) + theirs.shape if legacy else theirs.shape
            assert ours.dtype == np.float32
            assert ours.shape == shape
            np.testing.assert_array_equal(ours.ravel(), theirs.ravel())


WEIGHTS: Weights = {
    "conv1": [numbers(4, 3, 2, 2), numbers(4)],
    "relu": [],
    "ip": [numbers(2, 5), numbers(2)],
}


@pytest.mark.parametrize("syntax", ["current", "V1", "V0"])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_weights_of_every_syntax_are_read(syntax: str, legacy: bool, double: bool) -> None:
    equal(blobs_of(network(WEIGHTS, syntax, legacy, double)), WEIGHTS, legacy)


def scattered(values: NDArray[np.float32], double: bool = False, name: str = "x") -> bytes:
    """A layer whose numbers and dimensions come one by one, as old writers put them."""
    blob = MESSAGES["LooseBlob"]()
    put(blob, values, double=double)
    layer = MESSAGES["Layer"](name=name).SerializeToString() + field(7, blob.SerializeToString())
    return field(100, layer)


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(1,), (2, 3), (7, 11, 13)])
def test_numbers_that_come_one_by_one_are_read(shape: tuple[int, ...], double: bool) -> None:
    values = numbers(*shape)
    equal(blobs_of(scattered(values, double)), {"x": [values]})


def test_numbers_in_several_parts_are_joined() -> None:
    parts = [field(5, numbers(2).tobytes()), field(24, b"?"), field(5, numbers(3).tobytes())]
    one_by_one = b"".join(b"\x2d" + number.tobytes() for number in numbers(4))
    blob = field(7, field(1, varint(9))) + b"".join(parts) + one_by_one
    (read,) = blobs_of(field(100, field(1, b"x") + field(7, blob)))["x"]
    np.testing.assert_array_equal(read, np.concatenate([numbers(2), numbers(3), numbers(4)]))


def test_doubles_come_before_floats_as_in_caffe() -> None:
    net = MESSAGES["Net"]()
    blob = net.layer.add(name="x").blobs.add()
    put(blob, numbers(2))
    blob.double_data.extend([5.0, 1e300])
    (read,) = blobs_of(net.SerializeToString())["x"]
    np.testing.assert_array_equal(read, np.array([5, np.inf], np.float32))


def test_a_blob_without_axes_is_one_number() -> None:
    net = MESSAGES["Net"]()
    put(net.layer.add(name="x").blobs.add(), np.float32(3).reshape(()))
    net.layer.add(name="y").blobs.add(data=[4.0])
    read = blobs_of(net.SerializeToString())
    assert [read[name][0].shape for name in "xy"] == [(), ()]


def test_names_that_are_no_utf8_stay_apart() -> None:
    blob = field(7, field(5, b"\0" * 4))
    layers = [field(100, field(1, name) + blob) for name in (b"\xff", b"\xfe")]
    assert list(blobs_of(b"".join(layers))) == ["\\xff", "\\xfe"]


def test_large_weights_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.caffemodel"
    blob = field(7, field(1, varint(5_000_000))) + field(5, b"\0" * 20_000_000)
    packed = field(100, field(1, b"x") + field(7, blob))
    path.write_bytes(packed + scattered(numbers(40), name="y"))
    tracemalloc.start()
    read = read_caffemodel(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read["x"][0].nbytes == 20_000_000
    assert peak < 200_000
    assert not read["x"][0].flags.writeable
    np.testing.assert_array_equal(read["y"][0], numbers(40))


def blob_error(**fields: Any) -> str:
    net = MESSAGES["Net"]()
    layer = net.layer.add(name="conv1")
    put(layer.blobs.add(), numbers(2))
    layer.blobs.add(**fields)
    return failure(net.SerializeToString())


def test_damage_is_named_by_layer() -> None:
    shape = MESSAGES["Shape"]
    assert "layer conv1: blob 1 has 2 numbers, its shape [3] needs 3" in blob_error(
        data=[1, 2], shape=shape(dim=[3])
    )
    assert "layer conv1: blob 1 has 0 numbers, its shape [] needs 1" in blob_error()
    assert "layer conv1: blob 1 has the shape [0]" in blob_error(shape=shape(dim=[0]))
    assert "layer conv1: blob 1 has the shape [-1, 2]" in blob_error(shape=shape(dim=[-1, 2]))
    assert "has the shape [2, 0, 0, 0]" in blob_error(num=2)
    assert "layer conv1: blob 1 has the shape" in blob_error(data=[1], shape=shape(dim=[1] * 33))
    assert "needs 1000000000000" in blob_error(shape=shape(dim=[10**6, 10**6]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file holds no layers"),
        (MESSAGES["Net"](name="x").SerializeToString(), "the file holds no layers"),
        (b"\x89HDF\r\n\x1a\n", "weights in HDF5 are not supported"),
        (b"name: 'LeNet'\nlayer { }", "the network is malformed"),
        (b"layer { name: 'x' }", "the network is malformed"),
        (field(100, b"")[:-1] + b"\x05", "the network is truncated: a field goes on past its end"),
        (b"\xa2\x06", "the network is truncated"),
        (b"\xa0\x06\x01", "a layer is malformed"),
        (b"\xff" * 12, "the network is malformed"),
        (b"\x02\x00", "the network is malformed"),
        (field(100, b"\x08\x01"), "the name of a layer is malformed"),
        (field(100, field(1, b"x") + b"\x38\x01"), "layer x: blob 0 is malformed"),
        (field(100, field(1, b"x") + field(7, field(5, b"123"))), "its numbers are malformed"),
        (field(100, field(1, b"x") + field(7, b"\x28\x01")), "its numbers are malformed"),
        (field(100, field(1, b"x") + field(7, field(1, b"12"))), "a dimension is malformed"),
        (field(100, field(1, b"x") + field(7, b"\x38\x01")), "its shape is malformed"),
        (field(100, field(1, b"x") + field(7, b"\x2d\x00\x00")), "layer x: blob 0 is truncated"),
        (
            field(100, field(1, b"x") + field(7, field(7, b"\x0d\0\0\0\0"))),
            "its shape is malformed",
        ),
        (field(100, field(1, b"x") + field(7, field(7, field(1, b"\x80")))), "is truncated"),
        (scattered(numbers(2)) * 2, "two layers named x have weights"),
    ],
)
def test_what_is_no_caffemodel_is_refused(data: bytes, reason: str) -> None:
    assert reason in failure(data)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for path in [tmp_path / "missing", tmp_path, Path("a\0b")]:
        with pytest.raises(IrpruneError, match="cannot read the weights"):
            read_caffemodel(path)
    (tmp_path / "empty").touch()
    with pytest.raises(IrpruneError, match="no layers"):
        read_caffemodel(tmp_path / "empty")


def test_a_truncated_file_is_named_or_lacks_whole_layers() -> None:
    data = network(WEIGHTS, "current")
    whole = 0
    for end in range(len(data)):
        try:
            read = blobs_of(data[:end])
        except IrpruneError as error:
            assert "truncated" in str(error) or "no layers" in str(error)
        else:
            whole += 1
            equal(read, {name: WEIGHTS[name] for name in read})
    assert whole == 2  # at the two places where a layer ends


@st.composite
def weights(draw: st.DrawFn) -> Weights:
    shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
    blobs = st.lists(shapes, max_size=3).map(lambda all_: [numbers(*shape) for shape in all_])
    names = st.text(st.characters(codec="utf-8"), max_size=5)
    return draw(st.dictionaries(names, blobs, min_size=1))


SYNTAX = st.sampled_from(["current", "V1", "V0"])


@given(weights(), SYNTAX, st.booleans(), st.booleans())
def test_any_weights_are_read(written: Weights, syntax: str, legacy: bool, double: bool) -> None:
    equal(blobs_of(network(written, syntax, legacy, double)), written, legacy)


@given(weights(), SYNTAX, st.booleans(), st.data())
def test_damaged_bytes_never_crash(
    written: Weights, syntax: str, legacy: bool, data: st.DataObject
) -> None:
    damaged = bytearray(network(written, syntax, legacy))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1)) if damaged else 0
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    survive(bytes(damaged))


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xa2\x06", b"\x12"]))
def test_random_bytes_never_crash(data: bytes, start: bytes) -> None:
    survive(start + varint(len(data)) + data if start else data)


def survive(data: bytes) -> None:
    try:
        read = blobs_of(data)
    except IrpruneError as error:
        assert str(error)
    else:
        assert all(blob.dtype == np.float32 for blobs in read.values() for blob in blobs)


@pytest.mark.shared
def test_shared_caffemodels_are_read_as_google_reads_them(shared: Path) -> None:
    paths = sorted((shared / "caffe").rglob("*.caffemodel"))
    assert len(paths) == 10
    for path in paths:
        net = MESSAGES["Net"].FromString(path.read_bytes())
        layers = [*net.layer, *net.layers]
        read = read_caffemodel(path)
        assert list(read) == [layer.name for layer in layers if layer.blobs]
        for layer in layers:
            for ours, blob in zip(read.get(layer.name, []), layer.blobs, strict=True):
                legacy = [blob.num, blob.channels, blob.height, blob.width]
                assert list(ours.shape) == (list(blob.shape.dim) or legacy)
                np.testing.assert_array_equal(ours.ravel(), np.array(blob.data, np.float32))

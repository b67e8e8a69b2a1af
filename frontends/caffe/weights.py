"""Trained weights from a caffemodel: the protobuf wire format, read where it lies.

The file is memory-mapped and the blobs of float numbers are views of it, so that reading takes
little memory however large the file is. Only what leads to the blobs is looked at:

    network   layer = 100 (current), layers = 2 (V1)
    layer     name = 1, blobs = 7;  V1: name = 4, blobs = 6, V0 inside = 1: name = 1, blobs = 50
    blob      shape = 7 { dim = 1 }, or num, channels, height, width = 1, 2, 3, 4;
              data = 5 (float), double_data = 8; numbers packed or one by one
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irprune.errors import IrpruneError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_FLOATS = {5: "<f4", 8: "<f8"}  # the dtype of each of a blob's fields of numbers
_MOST_AXES = 32
_LARGEST_DIM = 2**31 - 1
_MEND = "copy the file again, or give a network's caffemodel"


def read_caffemodel(path: Path | str) -> dict[str, list[NDArray[np.float32]]]:
    """The blobs of every layer that has any, by layer name; read-only views where possible.

    Blobs that state four legacy dimensions keep all four, also where the layer has fewer axes.

    Raises:
        IrpruneError: the file is missing, truncated or no caffemodel, a blob's numbers do not
            match its shape, or two layers of one name have blobs.
    """
    try:
        with Path(path).open("rb") as stream:
            size = stream.seek(0, 2)
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise IrpruneError(f"cannot read the weights: {reason}", file=path) from error
    return blobs_of(data, path)


def blobs_of(
    data: bytes | mmap.mmap, file: Path | str | None = None
) -> dict[str, list[NDArray[np.float32]]]:
    """The blobs of a serialised network by layer name; see `read_caffemodel`."""
    if data[:4] == b"\x89HDF":
        raise IrpruneError(
            "weights in HDF5 are not supported", file=file, mend="save them as a binary caffemodel"
        )
    return _Reader(data, file).network()


class _Entry(NamedTuple):
    """One field: a varint's `value`, or the bytes from `start` to `end`.

    Fixed-size numbers that follow each other under one tag are one entry, `stride` bytes apart.
    """

    number: int
    wire: int
    start: int
    end: int
    value: int = 0
    stride: int = 0


@dataclass(frozen=True)
class _Reader:
    data: bytes | mmap.mmap
    file: Path | str | None

    def network(self) -> dict[str, list[NDArray[np.float32]]]:
        found: dict[str, list[NDArray[np.float32]]] = {}
        layers = 0
        for entry in self._entries(0, len(self.data), "the network"):
            if entry.number == 100:
                name, blobs = self._layer(entry, 1, 7)
            elif entry.number == 2:
                name, blobs = self._layer(entry, 4, 6, nested=1)
            else:
                continue
            layers += 1
            if blobs and name in found:
                raise self._error(f"two layers named {name} have weights", entry.start)
            if blobs:
                found[name] = blobs
        if not layers:
            raise IrpruneError("the file holds no layers", file=self.file, mend=_MEND)
        return found

    def _layer(
        self, layer: _Entry, name_number: int, blobs_number: int, nested: int | None = None
    ) -> tuple[str, list[NDArray[np.float32]]]:
        self._expect(layer, _BYTES, "a layer")
        name, blobs = "", []
        for entry in self._entries(layer.start, layer.end, "a layer"):
            if entry.number == name_number:
                self._expect(entry, _BYTES, "the name of a layer")
                raw = self.data[entry.start : entry.end]
                name = raw.decode("utf-8", errors="backslashreplace")
            elif entry.number == blobs_number:
                blobs.append(entry)
            elif entry.number == nested:
                return self._layer(entry, 1, 50)
        return name, [self._blob(blob, f"layer {name}: blob {i}") for i, blob in enumerate(blobs)]

    def _blob(self, blob: _Entry, what: str) -> NDArray[np.float32]:
        self._expect(blob, _BYTES, what)
        legacy: dict[int, int] = {}
        dims: list[int] | None = None
        pieces: dict[int, list[NDArray[np.floating]]] = {number: [] for number in _FLOATS}
        for entry in self._entries(blob.start, blob.end, what):
            if entry.number in (1, 2, 3, 4):
                self._expect(entry, _VARINT, f"{what}: a dimension")
                legacy[entry.number] = entry.value
            elif entry.number == 7:
                self._expect(entry, _BYTES, f"{what}: its shape")
                dims = [*(dims or []), *self._dims(entry, what)]
            elif entry.number in pieces:
                pieces[entry.number].append(self._numbers(entry, _FLOATS[entry.number], what))
        shape = [legacy.get(axis, 0) for axis in (1, 2, 3, 4)] if legacy else dims or []
        numbers = pieces[8] or pieces[5]
        count = sum(len(piece) for piece in numbers)
        if len(shape) > _MOST_AXES or not all(0 < dim <= _LARGEST_DIM for dim in shape):
            raise self._error(f"{what} has the shape {shape[: _MOST_AXES + 1]}", blob.start)
        if count != prod(shape):
            reason = f"{what} has {count} numbers, its shape {shape} needs {prod(shape)}"
            raise self._error(reason, blob.start)
        flat = numbers[0] if len(numbers) == 1 else np.concatenate(numbers)
        with np.errstate(over="ignore"):
            return flat.astype(np.float32, copy=False).reshape(shape)

    def _dims(self, shape: _Entry, what: str) -> Iterator[int]:
        for entry in self._entries(shape.start, shape.end, what):
            if entry.number != 1:
                continue
            if entry.wire == _VARINT:
                yield entry.value
                continue
            self._expect(entry, _BYTES, f"{what}: its shape")
            position = entry.start
            while position < entry.end:
                value, position = self._varint(position, entry.end, what)
                yield value

    def _numbers(self, entry: _Entry, dtype: str, what: str) -> NDArray[np.floating]:
        size = np.dtype(dtype).itemsize
        stride = entry.stride or size
        packed = entry.wire == _BYTES and (entry.end - entry.start) % size == 0
        if not packed and _SIZES.get(entry.wire) != size:
            raise self._error(f"{what}: its numbers are malformed", entry.start)
        count = (entry.end - entry.start + stride - size) // stride
        return np.ndarray((count,), dtype, self.data, entry.start, (stride,))

    def _entries(self, position: int, end: int, what: str) -> Iterator[_Entry]:
        """Iterate over the fields of the message between two offsets."""
        while position < end:
            first = position
            tag, position = self._varint(position, end, what)
            number, wire = tag >> 3, tag & 7
            if number == 0 or wire not in (_VARINT, _BYTES, *_SIZES):
                raise self._error(f"{what} is malformed", first)
            if wire == _VARINT:
                start = position
                value, position = self._varint(position, end, what)
                yield _Entry(number, wire, start, position, value)
                continue
            stride = 0
            if wire == _BYTES:
                length, position = self._varint(position, end, what)
                length = length if length >= 0 else end
            else:
                stride = position - first + _SIZES[wire]
                length = _SIZES[wire]
            if length > end - position:
                raise self._error(f"{what} is truncated: a field goes on past its end", position)
            if stride:
                length += stride * (self._repeats(first, position, stride, end) - 1)
            yield _Entry(number, wire, position, position + length, stride=stride)
            position += length

    def _repeats(self, first: int, payload: int, stride: int, end: int) -> int:
        """How many times the tag between `first` and `payload` follows, every `stride` bytes."""
        most = (end - first) // stride
        tag = np.frombuffer(self.data, np.uint8, payload - first, first)
        count = step = 1
        while count < most:
            step = min(2 * step, most - count)
            block = np.frombuffer(self.data, np.uint8, step * stride, first + count * stride)
            same = (block.reshape(step, stride)[:, : len(tag)] == tag).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count += step
        return count

    def _varint(self, position: int, end: int, what: str) -> tuple[int, int]:
        """A signed 64-bit number and the offset behind it."""
        value = 0
        for index, byte in enumerate(self.data[position : min(position + 10, end)]):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                value &= 2**64 - 1
                return value - 2**64 * (value >> 63), position + index + 1
        reason = "is truncated" if end - position < 10 else "is malformed"
        raise self._error(f"{what} {reason}", position)

    def _expect(self, entry: _Entry, wire: int, what: str) -> None:
        if entry.wire != wire:
            raise self._error(f"{what} is malformed", entry.start)

    def _error(self, reason: str, offset: int) -> IrpruneError:
        return IrpruneError(f"{reason} (at byte {offset})", file=self.file, mend=_MEND)

"""Cost models of devices that one does not have: padded multiply-accumulates, padded bytes.

Matrix units take matrices in blocks, and layouts store the two innermost axes in tiles; both pad
with zeros.  A kernel takes as long as the slower of its arithmetic and its traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.channels import Channels
from irprune.errors import IrpruneError
from irprune.kernels import Lengths, NodeKernel, Numbers, split
from irprune.ops import rule_for
from irprune.ops.rule import Size
from irprune.protocols import Prunable

_JUMP = 1.5

What = Literal["time", "macs", "bytes", "weights", "activations"]


@dataclass(frozen=True)
class AnalyticDevice:
    """A `DeviceModel` of blocks and tiles.

    A product of an (m, k) and a (k, n) matrix takes multiples of `rows`, `inner` and `columns`,
    or, turned, of `columns`, `inner` and `rows`, whichever is less; `rows` of 1 do not turn.
    A convolution's columns are its channels and its rows the images, or else the pixels.
    The two innermost axes of a tensor take multiples of `tile`; of the axes 0 and 1 of an
    activation or a filter (batch and channels), which of the two is innermost is chosen per
    tensor, whichever is smaller.
    """

    name: str
    rows: int
    inner: int
    columns: int
    tile: tuple[int, int]
    macs_per_byte: float
    """Multiply-accumulates in the time that one byte takes to or from memory."""
    macs_per_s: float | None = None
    """Nominal peak; None where only the shape of the cost is known."""

    def align(self) -> int:
        return self.columns

    def costs(self, base: Prunable, log: Callable[[str], None]) -> PaddedCost:
        """Return the time (or the arithmetic that takes as long) of a base graph under any plan."""
        return self.padded(base.channels, base.symbols, "time")

    def padded(self, channels: Channels, symbols: Mapping[str, int], what: What) -> PaddedCost:
        """Return padded time, multiply-accumulates or bytes of a base graph under any plan."""
        return PaddedCost(self, channels, split(channels, symbols), what)

    def macs(self, kernel: NodeKernel, lengths: Lengths) -> Numbers:
        """Return the multiply-accumulates with padding, shape ``(k,)``."""
        size = kernel.sizes(lengths)
        total = np.zeros(len(lengths))
        for node in kernel.nodes:
            macs = rule_for(node).macs
            once = macs(node, self._blocked(node, size, self.rows, self.columns))
            if self.rows > 1:
                turned = self._blocked(node, size, self.columns, self.rows)
                once = np.minimum(once, macs(node, turned))
            total += once
        return total

    def _blocked(self, node: ir.Node, size: Size, rows: int, columns: int) -> Size:
        """Round the axes that a rule counts multiply-accumulates by up to whole blocks."""
        convolves = node.op_type in ("Conv", "ConvTranspose")
        data, output = (*node.inputs, None)[0], node.outputs[0]
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        swapped = node.op_type == "ConvTranspose"
        inner: int = self.inner
        groups: Any = 1
        if convolves and node.attributes.get_int("group", 1) > 1:
            assert data is not None and weight is not None
            if self.rows == 1 and np.all(size(weight, 1) == 1):
                inner = 1  # depthwise: vectors lie across the groups
            else:
                groups = size(output if swapped else data, 1) / size(weight, 1)

        def blocked(value: ir.Value, axis: int) -> Any:
            length = size(value, axis)
            if convolves and value is weight:
                return _up(length, columns if swapped else inner) if axis == 1 else length
            if convolves and axis == 1:
                return groups * _up(length / groups, inner if swapped else columns)
            if convolves:
                return _up(length, rows) if axis == 0 and rows > columns else length
            if value is output:
                last = len(output.shape or ()) - 1
                block = {last: columns, last - 1: rows}.get(axis, 1)
                return _up(length, block)
            return _up(length, inner) if value is data else length

        return blocked

    def bytes(self, values: Sequence[ir.Value], size: Size) -> Any:
        """Return the bytes of tensors with padding; one number per row where sizes are arrays."""
        return sum(self._stored(value, size) for value in values)

    def _stored(self, value: ir.Value, size: Size) -> Any:
        if value.shape is None or value.dtype is None:
            return 0.0
        rank = len(value.shape)
        dims = [size(value, k) for k in range(rank)]
        if rank == 0:
            return value.dtype.itemsize
        if rank == 1:
            return value.dtype.itemsize * _up(dims[0], self.tile[1])
        pair = (0, 1) if rank == 4 else (rank - 2, rank - 1)
        a, b = (dims[k] for k in pair)
        outer = prod(dims[k] for k in range(rank) if k not in pair)
        tiled = np.minimum(
            _up(a, self.tile[0]) * _up(b, self.tile[1]), _up(b, self.tile[0]) * _up(a, self.tile[1])
        )
        return value.dtype.itemsize * outer * tiled


@dataclass(frozen=True)
class PaddedCost:
    """A `DeviceCost` by arithmetic."""

    device: AnalyticDevice
    channels: Channels
    kernels: Sequence[NodeKernel]
    what: What
    constant: float = 0.0

    @property
    def unit(self) -> str:
        if self.what == "time":
            return "MAC" if self.device.macs_per_s is None else "s"
        return "MAC" if self.what == "macs" else "B"

    def terms(self, kernel: int, lengths: Lengths) -> Numbers:
        """Return the cost of one kernel, shape ``(k,)``, at ``lengths`` of shape ``(k, axes)``."""
        chosen = self.kernels[kernel]
        device = self.device
        if self.what == "macs":
            return device.macs(chosen, lengths)
        size = chosen.sizes(lengths)
        weights = [value for value in chosen.inputs if value.is_initializer()]
        read = [value for value in chosen.inputs if not value.is_initializer()]
        values = {"weights": weights, "activations": chosen.outputs}.get(
            self.what, [*weights, *read, *chosen.outputs]
        )
        moved: Numbers = np.zeros(len(lengths)) + device.bytes(values, size)
        if self.what != "time":
            return moved
        work = np.maximum(device.macs(chosen, lengths), moved * device.macs_per_byte)
        return np.asarray(work / (device.macs_per_s or 1.0))

    def total(self, lengths: Lengths) -> Numbers:
        """Return the whole cost, shape ``(k,)``; ``lengths`` has shape ``(k, all axes)``."""
        total = np.full(len(lengths), self.constant)
        for number, kernel in enumerate(self.kernels):
            total += self.terms(number, lengths[:, kernel.axes])
        return total

    def useful(self, axis: int) -> NDArray[np.int64]:
        """Return the lengths after which the cost jumps, all other axes whole.

        A jump is clearly more than the mean slope; without any, every length is useful.
        """
        whole = self.channels.lengths(np.ones(self.channels.count, np.bool_))
        lengths = np.arange(1, whole[axis] + 1, dtype=np.int64)
        cost = np.zeros(len(lengths))
        for number, kernel in enumerate(self.kernels):
            if axis in kernel.axes:
                table = np.tile(whole[list(kernel.axes)], (len(lengths), 1))
                table[:, kernel.axes.index(axis)] = lengths
                cost += self.terms(number, table)
        rises = np.diff(cost)
        jumps = rises > _JUMP * rises.sum() / max(1, len(rises))
        ends = np.append(jumps if jumps.any() else np.ones(len(rises), np.bool_), True)
        return np.asarray(lengths[ends])


def _up(length: Any, multiple: int) -> Any:
    return np.ceil(length / multiple) * multiple


def parse(name: str) -> AnalyticDevice | None:
    """Return ``tpu-v2``, ``tpu-v3``, ``tensor-core[:MULTIPLE]`` or ``cache-line[:ELEMENTS]``.

    None where the name is none of these; IrpruneError where its number is none.
    """
    kind, _, number = name.partition(":")
    if kind not in KINDS or (number and kind in TPUS):
        return None
    if number and not (number.isdecimal() and int(number)):
        raise IrpruneError(f"device {name}: {number} is no multiple", mend=f"{kind}:16")
    return KINDS[kind](name, int(number) if number else 0)


def _tpu(macs_per_s: float, bytes_per_s: float) -> Callable[[str, int], AnalyticDevice]:
    """A 128 x 128 systolic array fed from tiles of 8 x 128 (XLA's layout)."""
    balance = macs_per_s / bytes_per_s
    return lambda name, _: AnalyticDevice(name, 8, 128, 128, (8, 128), balance, macs_per_s)


def _tensor_core(name: str, multiple: int) -> AnalyticDevice:
    """Matrix units in multiples of 8 (half precision), 16 (8 bits) or 64 (whole tiles)."""
    block = multiple or 8
    return AnalyticDevice(name, 1, block, block, (1, block), macs_per_byte=100)


def _cache_line(name: str, elements: int) -> AnalyticDevice:
    """Channels in whole cache lines, read and written: 16 elements of 4 bytes are 64 bytes."""
    block = elements or 16
    return AnalyticDevice(name, 1, block, block, (1, block), macs_per_byte=10)


TPUS = ("tpu-v2", "tpu-v3")
KINDS: dict[str, Callable[[str, int], AnalyticDevice]] = {
    "tpu-v2": _tpu(23e12, 700e9),
    "tpu-v3": _tpu(61.5e12, 900e9),
    "tensor-core": _tensor_core,
    "cache-line": _cache_line,
}
"""Devices by name.  Peaks of the TPUs per chip: Jouppi et al., CACM 63(7), 2020, table 3."""

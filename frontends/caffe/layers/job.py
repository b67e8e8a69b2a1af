"""What a converter works with: one layer, its bottoms, its parameters, the graph that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from irprune.errors import IrpruneError
from irprune.frontends.caffe.builder import Attribute, Builder
from irprune.frontends.caffe.message import Message
from irprune.frontends.caffe.network import Layer
from irprune.frontends.caffe.parameters import Blob, Parameters

Converter = Callable[["Job"], "Sequence[ir.Value]"]


@dataclass
class Job:
    """The conversion of one layer."""

    layer: Layer
    bottoms: Sequence[ir.Value]
    builder: Builder
    parameters: Parameters
    warn: Callable[[str], None]
    overwritten: bool
    """Nobody but this layer reads the first bottom."""
    _needed: bool = False

    def field(self, name: str) -> Message:
        """The parameter message of that name; an empty one where there is none."""
        return self.layer.fields.message(name)

    def need(self, least: int, most: int | None = None) -> None:
        """Refuse another number of bottoms."""
        self._needed, count = True, len(self.bottoms)
        if count < least or (most is not None and count > most):
            wanted = f"at least {least}" if most is None else str(least)
            wanted += f" to {most}" if most is not None and most > least else ""
            raise self.error(f"takes {wanted} bottoms, has {count}")

    @property
    def x(self) -> ir.Value:
        """The first bottom; the only one, unless `need` said otherwise."""
        if not self._needed:
            self.need(1, 1)
        return self.bottoms[0]

    def axis(self, axis: int, value: ir.Value | None = None, *, end: bool = False) -> int:
        """An axis of `value` (default: of the first bottom), counted from the front."""
        rank = len(dims(self.x if value is None else value)) + end
        if not -rank <= axis < rank:
            raise self.error(f"has no axis {axis}: its bottom has {rank - end} axes")
        return axis % rank

    def node(
        self, op: str, *inputs: ir.Value | None, what: str = "", **attributes: Attribute
    ) -> ir.Value:
        """A node with one output, named like the layer, or `<layer>/<what>`."""
        return self.nodes(1, op, *inputs, what=what, **attributes)[0]

    def nodes(
        self,
        outputs: int,
        op: str,
        *inputs: ir.Value | None,
        what: str = "",
        **attributes: Attribute,
    ) -> tuple[ir.Value, ...]:
        """A node with several outputs."""
        name = f"{self.layer.name}/{what}" if what else self.layer.name
        return self.builder.node(op, inputs, attributes, name, outputs)

    def constant(self, what: str, numbers: ArrayLike) -> ir.Value:
        """An initializer `<layer>/<what>`: float32 numbers."""
        with np.errstate(over="ignore"):  # as Caffe, which reads 1e39 as infinity
            array = np.asarray(numbers, np.float32)
        return self.builder.initializer(f"{self.layer.name}/{what}", array)

    def integers(self, what: str, numbers: Sequence[int]) -> ir.Value:
        """An initializer `<layer>/<what>`: int64 numbers for a shape or indices."""
        array = np.asarray(numbers, np.int64)
        return self.builder.initializer(f"{self.layer.name}/{what}", array)

    def reshape(self, x: ir.Value, target: Sequence[int], what: str = "") -> ir.Value:
        """`x` in another shape; 0 copies a length of `x`, -1 is what remains."""
        shape = self.integers(f"{what or 'reshape'}_shape", target)
        return self.node("Reshape", x, shape, what=what)

    def blob(
        self,
        index: int,
        shape: Sequence[int],
        param: Message,
        filler: str,
        default: float | None = 0.0,
    ) -> Blob:
        """Parameter blob `index`: loaded, shared, or filled as the field `filler` of `param` says.

        Without that field it is filled with `default`. For weights (None) Caffe would take zeros,
        with which nothing can be trained or proved: they are drawn like `msra` instead.
        """
        how = param.message(filler) if filler in param else None
        return self.parameters.blob(self.layer, index, tuple(shape), how, default)

    def loaded(self, index: int) -> NDArray[np.float32] | None:
        """Parameter blob `index` as the weights have it, in whatever shape."""
        return self.parameters.loaded(self.layer, index)

    def parameter(
        self, blob: Blob, suffix: str, array: NDArray[np.float32] | None = None
    ) -> ir.Value:
        """The initializer `<layer>.<suffix>` that holds `blob`, or `array` made from it."""
        return self.parameters.value(blob, suffix, blob.array if array is None else array)

    def merge_scale(self, weight: Blob, bias: Blob | None) -> ir.Value | None:
        """Make the parameters the scale and bias of a batch normalisation just before, if any.

        Returns its output, or None where there is none or another layer reads it.
        """
        y = self.x
        node = y.producer()
        if node is None or y not in self.parameters.unscaled or not self.overwritten:
            return None
        self.parameters.unscaled.remove(y)
        for index, suffix, blob in ((1, "weight", weight), (2, "bias", bias)):
            unit = node.inputs[index]
            if blob is not None and unit is not None:
                node.replace_input_with(index, self.parameter(blob, suffix))
                self.builder.drop(unit)
        return y

    def error(self, reason: str, mend: str | None = None) -> IrpruneError:
        """An error that names the layer and its line."""
        return self.layer.error(reason, mend)


def dims(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value; all lengths are known while a network is converted."""
    assert value.shape is not None
    return tuple(int(dim) for dim in value.shape.dims if isinstance(dim, int))

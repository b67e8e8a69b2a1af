"""The parameter blobs of the layers: loaded from a caffemodel, shared by name, or filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod, sqrt
from zlib import crc32

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.frontends.caffe.builder import Builder
from irprune.frontends.caffe.fillers import fill
from irprune.frontends.caffe.message import Message
from irprune.frontends.caffe.network import Layer, Param
from irprune.multipliers import Multipliers

Weights = Mapping[str, list[NDArray[np.float32]]]

MOST_NUMBERS = 2**31
"""The largest blob, of parameters or of activations."""


@dataclass(frozen=True)
class Blob:
    """A parameter blob and the layer that had it first."""

    owner: str
    array: NDArray[np.float32] = field(repr=False)
    lr_mult: float | None = None
    """As the first layer has it that says so."""
    decay_mult: float | None = None


@dataclass
class Parameters:
    """Every blob so far; initializers are made of them."""

    builder: Builder
    weights: Weights | None
    seed: int
    unscaled: set[ir.Value] = field(default_factory=set)
    """Outputs of batch normalisations whose scale is still one and whose bias is zero."""
    unfilled: list[str] = field(default_factory=list)
    """Layers whose weights have no filler."""
    missing: list[str] = field(default_factory=list)
    """Layers that the weights lack."""
    _shared: dict[str, Blob] = field(default_factory=dict)
    _values: dict[tuple[str, str, tuple[int, ...]], ir.Value] = field(default_factory=dict)
    _taken: dict[str, int] = field(default_factory=dict)

    def blob(
        self,
        layer: Layer,
        index: int,
        shape: tuple[int, ...],
        filler: Message | None,
        default: float | None,
    ) -> Blob:
        """Blob `index` of a layer.

        Raises:
            TextError: the weights have another number of blobs or another shape, or a shared blob
                has another size.
        """
        if prod(shape) > MOST_NUMBERS:
            raise layer.error(f"parameter blob {index} of shape {list(shape)} is too large")
        param = layer.params[index] if index < len(layer.params) else Param()
        shared = self._shared.get(param.name) if param.name else None
        loaded = self.loaded(layer, index)
        if filler is not None and (shared is not None or loaded is not None):
            filler.ignore(*(one.name for one in filler.fields))
        if shared is not None:
            if shared.array.size != prod(shape):
                raise layer.error(
                    f"shares the blob {param.name!r} of shape {list(shared.array.shape)}, needs "
                    f"{list(shape)}"
                )
            shared = _told_again(shared, param, layer)
            self._shared[param.name or ""] = shared
            return replace(shared, array=shared.array.reshape(shape))
        if loaded is not None:
            if _long(loaded.shape) != _long(shape):
                raise layer.error(
                    f"blob {index} of the weights has the shape {list(loaded.shape)}, the prototxt "
                    f"needs {list(shape)}",
                    "give the caffemodel of this prototxt",
                )
            array = loaded.reshape(shape)
        else:
            array = self._fill(layer, index, shape, filler, default)
        blob = Blob(layer.name, array, param.lr_mult, param.decay_mult)
        if param.name:
            self._shared[param.name] = blob
        return blob

    def loaded(self, layer: Layer, index: int) -> NDArray[np.float32] | None:
        """Blob `index` of a layer as the weights have it; None where they lack the layer."""
        self._taken[layer.name] = max(index + 1, self._taken.get(layer.name, 0))
        if self.weights is None:
            return None
        blobs = self.weights.get(layer.name)
        if blobs is None:
            if layer.name not in self.missing:
                self.missing.append(layer.name)
            return None
        if index >= len(blobs):
            raise layer.error(
                f"has {len(blobs)} blobs in the weights, the prototxt needs more",
                "give the caffemodel of this prototxt",
            )
        return blobs[index]

    def check(self, layer: Layer) -> None:
        """Refuse weights with more blobs than the layer has taken."""
        found = len((self.weights or {}).get(layer.name, ()))
        taken = self._taken.get(layer.name, 0)
        if found > taken:
            raise layer.error(
                f"has {found} blobs in the weights, the prototxt needs {taken}",
                "give the caffemodel of this prototxt",
            )

    def value(self, blob: Blob, suffix: str, array: NDArray[np.float32]) -> ir.Value:
        """The initializer `<owner>.<suffix>`, the same one for all that share the blob."""
        key = (blob.owner, suffix, array.shape)
        if key not in self._values:
            numbers = np.asarray(array, np.float32)
            self._values[key] = self.builder.initializer(f"{blob.owner}.{suffix}", numbers)
        told = {"lr": blob.lr_mult, "decay": blob.decay_mult}
        Multipliers(**{name: factor for name, factor in told.items() if factor is not None}).note(
            self._values[key]
        )
        return self._values[key]

    def _fill(
        self,
        layer: Layer,
        index: int,
        shape: tuple[int, ...],
        filler: Message | None,
        default: float | None,
    ) -> NDArray[np.float32]:
        generator = np.random.default_rng([self.seed, crc32(layer.name.encode()), index])
        if filler is not None:
            return fill(filler, shape, generator)
        if default is not None:
            return np.full(shape, default, np.float32)
        self.unfilled.append(layer.name)
        deviation = sqrt(2 * shape[0] / prod(shape))
        return (generator.standard_normal(shape) * deviation).astype(np.float32)


def _told_again(shared: Blob, param: Param, layer: Layer) -> Blob:
    """A shared blob with what one more of its layers says (TextError: the others say otherwise)."""
    told = {}
    for name in ("lr_mult", "decay_mult"):
        before, now = getattr(shared, name), getattr(param, name)
        if before is not None and now is not None and before != now:
            raise layer.error(
                f"shares the blob {param.name!r} with `{name}` {before:g}, but has {now:g}"
            )
        told[name] = now if before is None else before
    return replace(shared, **told)


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes longer than 1: old files state four axes for every blob."""
    return tuple(length for length in shape if length != 1)

"""Caffe's fillers: what the parameters of a layer start with where no weights are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, inf, isfinite, prod, sqrt

import numpy as np
from numpy.typing import NDArray

from irprune.frontends.caffe.message import Message

Array = NDArray[np.floating]
_NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")


def fill(
    filler: Message, shape: Sequence[int], generator: np.random.Generator
) -> NDArray[np.float32]:
    """A blob of that shape as a `weight_filler`, `bias_filler` or `filler` message describes it.

    An empty message means zeros, as in Caffe. Draws follow Caffe's distributions, not the
    sequence of its generator.

    Raises:
        TextError: the filler is unknown, or cannot fill such a shape.
    """
    kind = filler.one("type")
    fillers = _FILLERS[kind.one_of(list(_FILLERS)) if kind else "constant"]
    return fillers(filler, tuple(shape), generator).astype(np.float32)


def _constant(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    return np.full(shape, filler.float("value", 0.0))


def _uniform(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    low, high = filler.float("min", 0.0), filler.float("max", 1.0)
    _check(filler, "max", isfinite(low) and low <= high < inf, "at least `min`")
    return low + (high - low) * generator.random(shape)


def _gaussian(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    mean, std = filler.float("mean", 0.0), filler.float("std", 1.0)
    _check(filler, "std", std >= 0, "zero or more")
    values = mean + std * generator.standard_normal(shape)
    sparse = filler.int("sparse", -1)
    if sparse >= 0:  # as many inputs per output stay, on average
        _check(filler, "sparse", bool(shape) and sparse <= shape[0], "at most the outputs")
        values = values * (generator.random(shape) < sparse / shape[0])
    return values


def _xavier(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    return generator.uniform(-1, 1, shape) * sqrt(3 / _fan(filler, shape))


def _msra(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    return generator.standard_normal(shape) * sqrt(2 / _fan(filler, shape))


def _unit_ball(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Positive numbers that sum to one for each position of the first axis."""
    values = generator.random(shape)
    values /= values.sum(axis=tuple(range(1, len(shape))), keepdims=True)
    return values


def _bilinear(filler: Message, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """The kernel that makes a deconvolution interpolate; every channel has the same.

    Odd kernels are symmetric, as in later versions of Caffe; the first ones got them wrong.
    """
    if len(shape) != 4 or shape[2] != shape[3]:
        raise filler.error(f"bilinear filling needs square kernels, the shape is {list(shape)}")
    factor = ceil(shape[3] / 2)
    center = (shape[3] - 1) / (2 * factor)
    line = 1 - np.abs(np.arange(shape[3]) / factor - center)
    return np.broadcast_to(np.outer(line, line), shape)


def _fan(filler: Message, shape: tuple[int, ...]) -> float:
    """How many numbers feed one output, or one input, as `variance_norm` says."""
    count = prod(shape)
    fan_in = count / shape[0] if shape else 1
    fan_out = count / shape[1] if len(shape) > 1 else count
    fans = {"FAN_IN": fan_in, "FAN_OUT": fan_out, "AVERAGE": (fan_in + fan_out) / 2}
    return fans[filler.enum("variance_norm", _NORMS, "FAN_IN")]


def _check(filler: Message, name: str, good: bool, must_be: str) -> None:
    found = filler.one(name)
    if not good:
        raise (found or filler).error(f"`{name}` must be {must_be}")


_FILLERS: dict[str, Callable[[Message, tuple[int, ...], np.random.Generator], Array]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "xavier": _xavier,
    "msra": _msra,
    "positive_unitball": _unit_ball,
    "bilinear": _bilinear,
}

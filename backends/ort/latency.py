"""The latency of one base graph on onnxruntime, learnt from profiles of designed plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irprune.kernels import Lengths, NodeKernel, Numbers

_FLOOR_S = 2e-6
"""Kernels faster than this are noise: errors count relative to no less."""

_SWEEPS = 300


@dataclass(frozen=True)
class Term:
    """Seconds of a kernel as a sum of works, each times a rate that is not negative."""

    step: int
    rates: Numbers

    def at(self, kernel: NodeKernel, lengths: Lengths) -> Numbers:
        return features(kernel, lengths, self.step) @ self.rates


def features(kernel: NodeKernel, lengths: Lengths, step: int) -> Numbers:
    """Return the works that a kernel's time is made of, shape ``(k, works)``."""
    work = kernel.work(lengths, step)
    parts = (np.ones(len(lengths)), work.macs, work.inputs, work.outputs, work.weights)
    return np.stack(parts, axis=1)


def fit(x: Numbers, seconds: Numbers) -> Numbers:
    """Return rates >= 0 that bring ``x @ rates`` nearest to ``seconds``, relative to them.

    Coordinate descent on the normal equations; x has shape ``(samples, works)``.
    """
    weight = 1 / np.maximum(seconds, _FLOOR_S)
    scaled, target = x * weight[:, None], seconds * weight
    norms = np.linalg.norm(scaled, axis=0)
    used = norms > 0
    scaled = scaled[:, used] / norms[used]
    gram, moment = scaled.T @ scaled, scaled.T @ target
    rates = np.zeros(len(moment))
    for _ in range(_SWEEPS):
        for k in range(len(rates)):
            rates[k] = max(0.0, rates[k] + (moment[k] - gram[k] @ rates) / gram[k, k])
    result = np.zeros(x.shape[1])
    result[used] = rates / norms[used]
    return result


@dataclass(frozen=True)
class Latency:
    """A `DeviceCost` in seconds: a term per kernel, scaled to whole runs."""

    kernels: Sequence[NodeKernel]
    fitted: Sequence[Term]
    constant: float
    scale: float
    widths: Mapping[int, NDArray[np.int64]]
    unit: str = "s"

    def terms(self, kernel: int, lengths: Lengths) -> Numbers:
        """Return the seconds of one kernel, shape ``(k,)``, at ``lengths``, ``(k, axes)``."""
        return self.scale * self.fitted[kernel].at(self.kernels[kernel], lengths)

    def useful(self, axis: int) -> NDArray[np.int64]:
        return self.widths[axis]

"""Weights drawn anew: a rewrite that is proved with them is proved where trained ones say nothing.

About layers without effect, such as those whose ReLU never lets anything through, or about
constants, a comparison says nothing: no mistake in them could be noticed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from irprune.roles import Role, roles


def draw_initializers(model: ir.Model, seed: int) -> None:
    """Replace what trains, and running statistics, in place."""
    random = np.random.default_rng(seed)
    for value, role in roles(model.graph).items():
        tensor = value.const_value
        if role is Role.CONSTANT or tensor is None or not tensor.dtype.is_floating_point():
            continue
        value.const_value = ir.tensor(drawn(tensor.numpy(), random), name=value.name)


def drawn(array: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """Return numbers of the same shape, dtype and kind.

    Filters become normal with variance 2 / fan-in; vectors stay positive where they mostly were.
    """
    noise = random.standard_normal(array.shape)
    if array.ndim > 1:
        made = noise * np.sqrt(2 / max(array[0].size, 1))
    elif np.median(array.astype(np.float64)) > 0:
        made = 1 + 0.1 * np.abs(noise)
    else:
        made = 0.1 * noise
    return np.asarray(made, array.dtype)

"""What the tests of normalisation share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from irprune import structure
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.normalize import Normalize


def normalize(model: Model, log: Callable[[str], None] = print) -> Model:
    """Return the model normalised; the given one is left alone."""
    after = model.clone()
    context = Context(log=log)
    Normalize().run(after, context)
    structure.check(after, context)
    return after


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def weights(model: Model) -> dict[str, np.ndarray]:
    found = model.ir.graph.initializers
    return {n: v.const_value.numpy() for n, v in found.items() if v.const_value is not None}

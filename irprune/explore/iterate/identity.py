"""What tells one iterative run from another."""

from __future__ import annotations

import json

from irprune.explore.folders import Identity
from irprune.explore.iterate.config import Config
from irprune.fingerprint import structure_hash, weights_hash
from irprune.model import Model
from irprune.training import Trainer


def identity_of(config: Config, model: Model, trainer: Trainer) -> Identity:
    """Return what decides the results, as JSON.

    Args:
        model: the network, normalised; the numbers of weights that are drawn anew do not count.
    """
    given = config.model.weights == "given"
    network = {
        "structure": structure_hash(model.ir),
        "weights": weights_hash(model.ir) if given else None,
    }
    told = config.identity() | {"network": network, "examples": trainer.fingerprint()}
    made: Identity = json.loads(json.dumps(told))
    return made

"""What tells one iterative run from another."""

from __future__ import annotations

import json

from irprune.explore.folders import Identity, network_of
from irprune.explore.iterate.config import Config
from irprune.model import Model
from irprune.training import Trainer


def identity_of(config: Config, model: Model, trainer: Trainer) -> Identity:
    """Return what decides the results, as JSON.

    Args:
        model: the network, normalised; the numbers of weights that are drawn anew do not count.
    """
    network = network_of(model, weights=config.model.weights == "given")
    told = config.identity() | {"network": network, "examples": trainer.fingerprint()}
    made: Identity = json.loads(json.dumps(told))
    return made

"""What tells one iterative run from another, and what runs of one original network share."""

from __future__ import annotations

import json
from pathlib import Path

from irprune.errors import IrpruneError
from irprune.explore.folders import FOUND, Identity, differing, read_json
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


def check_base(base: Path, mine: Identity) -> None:
    """Raise IrpruneError unless the original network of another run is there and the same."""
    path, mend = base / "run.json", "finish that run, or leave --base out"
    if not (path.is_file() and (base / "round-000" / "record.json").is_file()):
        raise IrpruneError("its original network is not there yet", file=base, mend=mend)
    found = read_json(path, mend)
    if any(key not in found for key in FOUND):
        reason = "it does not tell which network and data it is of"
        raise IrpruneError(reason, file=path, mend="start that run again, which notes them")
    changed = differing(_original(found), _original(mine))
    if changed:
        reason = f"its original network was made otherwise: {', '.join(changed)} differ"
        raise IrpruneError(reason, file=base, mend="leave --base out")


def _original(identity: Identity) -> Identity:
    """Return what decides the training of the original network."""
    rewind = identity.get("rewind")
    epoch = rewind.get("epoch") if isinstance(rewind, dict) else None
    kept = ("model", "data", "train", "pretrained", *FOUND)
    return {key: identity.get(key) for key in kept} | {"rewind.epoch": epoch}

"""Which run a folder is for: what was asked for, of which network, on which data.

``run.json`` keeps it. Where network and data lie is noted there, and whether rounds are proved, but
that does not tell runs apart: the hashes of network and data do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irprune.atomic import write_text
from irprune.errors import IrpruneError
from irprune.explore.iterate.config import Config
from irprune.explore.iterate.files import read_json
from irprune.fingerprint import structure_hash, weights_hash
from irprune.model import Model
from irprune.training import Trainer

Identity = dict[str, Any]
_NOTED = {"model": "source", "data": "path", "prune": "verify"}
_FOUND = ("network", "examples")
_NEW_FOLDER = "choose another folder, or remove this one"


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


def claim(folder: Path, mine: Identity, log: Callable[[str], None]) -> None:
    """Note what a folder is for (IrpruneError: it is for something else)."""
    path = folder / "run.json"
    if not path.is_file():
        if any(folder.glob("round-*")):
            reason = "it is missing, so nobody knows which run the rounds beside it are of"
            raise IrpruneError(reason, file=path, mend=_NEW_FOLDER)
        _note(path, mine)
        return
    found = read_json(path, _NEW_FOLDER)
    missing = {key: mine[key] for key in _FOUND if key not in found}
    changed = _differing(found | missing, mine)
    if changed:
        reason = f"the folder holds another run: {', '.join(changed)} differ"
        raise IrpruneError(reason, file=path, mend=_mend(changed))
    if missing:
        _note(path, found | missing)
        log(f"iterate: {path} did not tell {' and '.join(missing)}; noted as they are now")


def check_base(base: Path, mine: Identity) -> None:
    """Raise IrpruneError unless the original network of another run is there and the same."""
    path, mend = base / "run.json", "finish that run, or leave --base out"
    if not (path.is_file() and (base / "round-000" / "record.json").is_file()):
        raise IrpruneError("its original network is not there yet", file=base, mend=mend)
    found = read_json(path, mend)
    if any(key not in found for key in _FOUND):
        reason = "it does not tell which network and data it is of"
        raise IrpruneError(reason, file=path, mend="start that run again, which notes them")
    changed = _differing(_original(found), _original(mine))
    if changed:
        reason = f"its original network was made otherwise: {', '.join(changed)} differ"
        raise IrpruneError(reason, file=base, mend="leave --base out")


def _original(identity: Identity) -> Identity:
    """Return what decides the training of the original network."""
    rewind = identity.get("rewind")
    epoch = rewind.get("epoch") if isinstance(rewind, dict) else None
    kept = ("model", "data", "train", "pretrained", *_FOUND)
    return {key: identity.get(key) for key in kept} | {"rewind.epoch": epoch}


def _differing(one: Identity, two: Identity) -> list[str]:
    return [key for key in two if _decisive(key, one.get(key)) != _decisive(key, two[key])]


def _decisive(key: str, part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {name: value for name, value in part.items() if name != _NOTED.get(key)}


def _mend(changed: list[str]) -> str:
    if changed != ["network"]:
        return _NEW_FOLDER
    return f"seed a factory that draws weights, or name round-000/start.onnx; else {_NEW_FOLDER}"


def _note(path: Path, identity: Identity) -> None:
    write_text(path, json.dumps(identity, indent=1) + "\n")

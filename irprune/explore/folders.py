"""The folder of a run: held by one process at a time, and for one run only.

``run.json`` says which: what was asked for, of which network, on which data. Where network and data
lie is noted there too, but does not tell runs apart: their hashes do. Nor does what cannot change
results, or only by the order of additions. Until something is trained there, the folder may become
another run's.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irprune.atomic import remove_temporaries, write_text
from irprune.errors import IrpruneError
from irprune.fingerprint import structure_hash, weights_hash
from irprune.model import Model
from irprune.multipliers import multipliers

Identity = dict[str, Any]
"""What decides the results of a run, as JSON."""
FOUND = ("network", "examples")
"""What an identity tells of the contents of files."""
NEW_FOLDER = "choose another folder, or remove this one"
CHECKPOINT = "checkpoint.pt"
_BEGUN = (CHECKPOINT, "round-*")
_RESULTS = (CHECKPOINT, f"round-*/{CHECKPOINT}", "round-*/record.json")
_OURS = {"data", "train"}
"""What every ``run.json`` tells that a run wrote."""
_UNTOLD: Identity = {"machine": {"precision": "32-true", "devices": 1}}
"""What holds where a ``run.json`` does not tell it."""
_WRITTEN = {".json", ".jsonl", ".md", ".onnx", ".pt"}
_NOTED = {"model.source", "data.path", "data.workers", "prune.verify"}


def network_of(model: Model, *, weights: bool = True) -> Identity:
    """Return what tells a network from others.

    Args:
        weights: whether their numbers do, or are drawn anew.
    """
    told: Identity = {
        "structure": structure_hash(model.ir),
        "weights": weights_hash(model.ir) if weights else None,
    }
    rates = {name: asdict(factors) for name, factors in multipliers(model.ir.graph).items()}
    return told | ({"multipliers": rates} if rates else {})


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Make the folder; turn what the disk refuses into an IrpruneError, which names the file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        mend = f"{folder} must be a folder that can be written to, with room left"
        reason = error.strerror or str(error)
        raise IrpruneError(reason, file=error.filename or folder, mend=mend) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process (IrpruneError: another one holds it)."""
    with (folder / ".lock").open("w") as lock:
        try:
            # Unlike flock, this is of the process alone: the workers that it forks do not hold it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            reason = "another process is at work in this folder"
            raise IrpruneError(reason, file=folder, mend="wait for it, or end it") from error
        yield


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Return the object that a JSON file holds (IrpruneError: none)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IrpruneError(f"cannot read: {error}", file=path, mend=mend) from error
    if not isinstance(found, dict):
        raise IrpruneError("is no JSON object", file=path, mend=mend)
    return found


def claim(folder: Path, mine: Identity, *, unlike: str, log: Callable[[str], None]) -> None:
    """Note what a folder is for (IrpruneError: it is for something else).

    Where nothing is trained yet, what another run began is removed.

    Args:
        unlike: what to do where only the weights are others.
    """
    path = folder / "run.json"
    if not path.is_file():
        if any(path for begun in _BEGUN for path in folder.glob(begun)):
            reason = "it is missing, so nobody knows which run the files beside it are of"
            raise IrpruneError(reason, file=path, mend=NEW_FOLDER)
        _note(path, mine)
        return
    found = read_json(path, NEW_FOLDER)
    missing = {key: mine[key] for key in FOUND if key not in found}
    changed = differing(found | missing, mine)
    if changed and (_trained(folder) or not found.keys() >= _OURS):
        reason = f"the folder holds another run: {', '.join(changed)} differ"
        mend = f"{unlike}; else {NEW_FOLDER}" if changed == ["network.weights"] else NEW_FOLDER
        raise IrpruneError(reason, file=path, mend=mend)
    if changed:
        for begun in folder.glob("round-*"):
            shutil.rmtree(begun)
        _note(path, mine)
    elif missing:
        _note(path, found | missing)
        log(f"{path} did not tell {' and '.join(missing)}; noted as they are now")


def _trained(folder: Path) -> bool:
    return any(path for result in _RESULTS for path in folder.glob(result))


def tidy(folder: Path) -> None:
    """Remove what kills left: files that were half written, checkpoints of rounds that are done."""
    rounds = [path for path in folder.glob("round-*") if path.is_dir()]
    for place in (folder, *rounds):
        remove_temporaries(place, _WRITTEN)
    for place in rounds:
        if (place / "record.json").is_file():
            (place / CHECKPOINT).unlink(missing_ok=True)


def differing(one: Identity, two: Identity) -> list[str]:
    """Return where two identities differ, as dotted keys."""
    one = _UNTOLD | one
    return [place for key in two for place in _places(key, one.get(key), two[key])]


def _places(place: str, one: Any, two: Any) -> list[str]:
    if place in _NOTED:
        return []
    if not (isinstance(one, dict) and isinstance(two, dict)):
        return [] if one == two else [place]
    keys = two | one
    return [p for key in keys for p in _places(f"{place}.{key}", one.get(key), two.get(key))]


def _note(path: Path, identity: Identity) -> None:
    write_text(path, json.dumps(identity, indent=1) + "\n")

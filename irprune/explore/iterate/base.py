"""What runs of one original network share: its training, taken over from another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irprune.atomic import replacing
from irprune.errors import IrpruneError
from irprune.explore.folders import CHECKPOINT, FOUND, Identity, differing, read_json
from irprune.explore.iterate.files import load_model, load_plan
from irprune.explore.iterate.records import read_record

_RECORD = "record.json"


def check_base(base: Path, mine: Identity) -> None:
    """Raise IrpruneError unless another run's original network is there, whole and the same."""
    path, mend = base / "run.json", "finish that run, or leave --base out"
    if not (path.is_file() and (_original_of(base) / _RECORD).is_file()):
        raise IrpruneError("its original network is not there yet", file=base, mend=mend)
    found = read_json(path, mend)
    if any(key not in found for key in FOUND):
        reason = "it does not tell which network and data it is of"
        raise IrpruneError(reason, file=path, mend="start that run again, which notes them")
    changed = differing(_decisive(found), _decisive(mine))
    if changed:
        reason = f"its original network was made otherwise: {', '.join(changed)} differ"
        raise IrpruneError(reason, file=base, mend="leave --base out")
    try:
        _check_files(_original_of(base), mine["rewind"])
    except IrpruneError as error:
        error.mend = _again(base)
        raise


def take_over(base: Path, folder: Path) -> None:
    """Copy the original network of another run, its record last: by that it is done.

    Raises:
        IrpruneError: a file cannot be read, or written.
    """
    folder.mkdir(exist_ok=True)
    found = [path for path in _original_of(base).glob("[!.]*") if path.is_file()]
    for path in sorted(found, key=lambda path: path.name == _RECORD):
        if path.name != CHECKPOINT:
            _copy(base, path, folder)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _original_of(base: Path) -> Path:
    return base / "round-000"


def _again(base: Path) -> str:
    folder = _original_of(base)
    return f"leave --base out, or remove the folder {folder} and start that run again"


def _decisive(identity: Identity) -> Identity:
    """Return what decides the training of the original network, which has no teacher."""
    rewind, train = identity.get("rewind"), identity.get("train")
    epoch = rewind.get("epoch") if isinstance(rewind, dict) else None
    if isinstance(train, dict):
        train = {key: value for key, value in train.items() if key != "distillation"}
    kept = ("model", "data", "train", "machine", "pretrained", *FOUND)
    found = {key: identity[key] for key in kept if key in identity}
    return found | {"train": train, "rewind.epoch": epoch}


def _check_files(original: Path, rewind: dict[str, Any]) -> None:
    """Read what rounds start from."""
    read_record(original / _RECORD)
    load_plan(original / "plan.json")
    load_model(original / "model.onnx")
    if rewind["what"] == "weights":
        load_model(original / f"epoch-{rewind['epoch']}.onnx")


def _copy(base: Path, path: Path, folder: Path) -> None:
    with replacing(folder / path.name) as whole:
        try:
            content = path.read_bytes()
        except OSError as error:
            reason = f"cannot read: {error.strerror}"
            raise IrpruneError(reason, file=path, mend=_again(base)) from error
        whole.write_bytes(content)

"""Checkpoints: whole or absent, and read back without executing anything."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from irprune.atomic import replacing
from irprune.errors import IrpruneError

_FORMAT = 2
_UNHASHED = 1
"""The format of before there was a hash."""
_DAMAGED = (
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
)


@dataclass
class Progress:
    """Where training stands; nothing random has a state, so this is all besides the weights."""

    epoch: int
    """Epochs done."""
    batch: int = 0
    """Batches done of the next one."""
    loss: float = 0.0
    """Sum of the losses of these batches."""
    micro: int | None = None
    """Examples that fit into memory at once, where a batch did not."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per epoch."""


def save(
    path: Path,
    identity: str,
    module: dict[str, Any],
    optimizer: dict[str, Any],
    progress: Progress,
) -> None:
    """Write a checkpoint, atomically (IrpruneError: the disk does not take it)."""
    content = {
        "identity": identity,
        "module": module,
        "optimizer": optimizer,
        "progress": vars(progress),
    }
    whole = io.BytesIO()  # torch, writing to a full disk, does not say that it is full
    torch.save({"format": _FORMAT, "hash": _hash(content), **content}, whole)
    with replacing(path) as temporary:
        temporary.write_bytes(whole.getbuffer())


def load(path: Path, identity: str) -> tuple[dict[str, Any], dict[str, Any], Progress] | None:
    """Return the state of module and optimiser, and the progress; None where there is no file.

    Raises:
        IrpruneError: the file is damaged, or was made by another recipe or for another network.
    """
    if not path.is_file():
        return None
    reason, mend = "not a usable checkpoint", "remove it to start again"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        version = found.pop("format")
        whole = version != _FORMAT or found.pop("hash") == _hash(found)
        progress = Progress(**found["progress"])
        saved, module, optimizer = found["identity"], found["module"], found["optimizer"]
    except OSError as error:
        raise IrpruneError(f"cannot read: {error.strerror}", file=path, mend=mend) from error
    except _DAMAGED as error:  # torch's own advice is to execute what the file holds: not quoted
        raise IrpruneError(reason, file=path, mend=mend) from error
    if version not in (_FORMAT, _UNHASHED):
        raise IrpruneError(f"{reason}: format {version}", file=path, mend=mend)
    if not whole:
        raise IrpruneError(reason, file=path, mend=mend)
    if saved != identity:
        reason = "the checkpoint was made by another recipe or for another network"
        raise IrpruneError(reason, file=path, mend=mend)
    return module, optimizer, progress


def _hash(content: dict[str, Any]) -> str:
    """Return what tells contents apart: damaged ones may be read like any others."""
    found = hashlib.sha256()
    for part in _parts(content):
        found.update(part)
    return found.hexdigest()


def _parts(content: Any) -> Iterator[bytes | memoryview]:
    if isinstance(content, torch.Tensor):
        yield f"{content.dtype} {[*content.shape]}".encode()
        yield content.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    elif isinstance(content, dict):
        yield f"dict {len(content)}".encode()
        for key, value in content.items():
            yield repr(key).encode()
            yield from _parts(value)
    elif isinstance(content, list | tuple):
        yield f"{type(content).__name__} {len(content)}".encode()
        for value in content:
            yield from _parts(value)
    else:
        yield repr(content).encode()

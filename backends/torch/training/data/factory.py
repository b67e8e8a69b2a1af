"""``module:factory``: a data set made by the user's own code, which is imported and run."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from irprune.backends.torch.training.data.arrays import ArrayData, Augmentation
from irprune.backends.torch.training.data.source import Data
from irprune.errors import IrpruneError

_PARTS = ("x_train", "y_train", "x_test", "y_test")


def from_factory(
    spec: str,
    path: Path | str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    augmentation: Augmentation,
) -> Data:
    """Call ``module:factory`` with `path`; it returns a `Data`, or four arrays by name or in order.

    Raises:
        IrpruneError: there is no such module or function, it fails, or it returns something else.
    """
    module, _, name = spec.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        reason = f"no module {error.name!r}"
        raise IrpruneError(
            reason, file=spec, mend="it must be importable: see PYTHONPATH"
        ) from None
    except AttributeError:
        raise IrpruneError(f"module {module} has no {name!r}", file=spec) from None
    try:
        made: Any = factory(path)
    except IrpruneError:
        raise
    except Exception as error:
        raise IrpruneError(f"the factory failed: {error!r}", file=spec) from error
    if isinstance(made, tuple) and len(made) == len(_PARTS):
        made = dict(zip(_PARTS, made, strict=True))
    if isinstance(made, dict) and set(made) == set(_PARTS):
        arrays = {key: np.asarray(value) for key, value in made.items()}
        return ArrayData(**arrays, mean=mean, std=std, augmentation=augmentation, file=spec)
    if not all(hasattr(made, part) for part in ("classes", "shape", "size", "batches")):
        reason = f"the factory returned {type(made).__name__}"
        raise IrpruneError(reason, file=spec, mend=f"return a Data, or {', '.join(_PARTS)}")
    found: Data = made
    return found

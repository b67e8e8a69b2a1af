"""``file.py:function``: a model made by the user's own file. This executes the file."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from irprune.errors import IrpruneError
from irprune.frontends.torch.export import from_torch
from irprune.model import Model


def load_factory(spec: str, shapes: Mapping[str, Sequence[int]]) -> Model:
    """See `irprune.frontends.torch.load_factory`."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise IrpruneError("no such file", file=path, mend="name a factory as file.py:function")
    with _importable(path.parent):
        factory = _named(_executed(path), name, path)
        made = _called(factory, f"{name}()", path)
        module, args = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(module, nn.Module):
            raise IrpruneError(
                f"{name}() returns {type(made).__name__}",
                file=path,
                mend="return a torch.nn.Module, or (module, args)",
            )
        if args is None:
            args = _sized(module, name, shapes, path)
        elif isinstance(args, torch.Tensor):
            args = (args,)
        try:
            model = from_torch(module, tuple(args), {}, None)
        except IrpruneError as error:
            error.file = error.file or path
            raise
    model.provenance = replace(model.provenance, name=name, path=path)
    return model


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While it lasts, the file may import its neighbours, as a script may."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _executed(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"_irprune_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles look their module up there
    return _called(lambda: spec.loader.exec_module(module), "executing it", path) or module


def _called(function: Any, what: str, path: Path) -> Any:
    try:
        return function()
    except Exception as error:  # the user's file may raise anything
        raise IrpruneError(f"{what} raises {type(error).__name__}: {error}", file=path) from error


def _named(module: Any, name: str, path: Path) -> Any:
    found = getattr(module, name, None)
    if callable(found):
        return found
    own = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
    reason = f"has no function {name!r}" if name else "names no function after the colon"
    raise IrpruneError(reason, file=path, mend=f"it has {', '.join(own) or 'none'}")


def _sized(
    module: nn.Module, name: str, shapes: Mapping[str, Sequence[int]], path: Path
) -> tuple[torch.Tensor, ...]:
    """Return float inputs of the sizes that the user gave by the names of forward's parameters."""
    parameters = inspect.signature(module.forward).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty or p.name in shapes]
    missing = [parameter for parameter in needed if parameter not in shapes]
    if missing:
        raise IrpruneError(
            f"{name}() returns a module without example inputs",
            file=path,
            mend=f"return (module, args), or give --shape {missing[0]}=1x3x224x224",
        )
    return tuple(torch.zeros(*shapes[parameter]) for parameter in needed)

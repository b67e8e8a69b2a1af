"""Passes and presets by name; passes are strings, imported when they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from types import MappingProxyType

from irprune.passbase import Pass


def table(entries: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """A read-only mapping of the entries; a name given twice is a ValueError."""
    known: dict[str, str] = {}
    for name, target in entries:
        if name in known:
            raise ValueError(f"`{name}` is registered twice: {known[name]} and {target}")
        known[name] = target
    return MappingProxyType(known)


PASSES = table(
    [
        ("normalize", "irprune.passes.normalize:Normalize"),
        ("convert-opset", "irprune.passes.convert_opset:ConvertOpset"),
        ("fold-batchnorm", "irprune.passes.fold_batchnorm:FoldBatchNorm"),
        ("dead-channels", "irprune.passes.dead_channels:DeadChannels"),
        ("prune", "irprune.passes.prune:Prune"),
        ("compact", "irprune.passes.compact:Compact"),
        ("cleanup", "irprune.passes.cleanup:Cleanup"),
        ("verify", "irprune.passes.verify:Verify"),
        ("print", "irprune.passes.print_:Print"),
    ]
)

PRESETS = table([("default", "normalize, prune{macs=0.5 align=auto}, compact")])


def load_pass(name: str, passes: Mapping[str, str] = PASSES) -> type[Pass]:
    """Import the pass class registered as `name` (KeyError where there is none)."""
    module, _, attribute = passes[name].partition(":")
    cls = getattr(import_module(module), attribute)
    if not (isinstance(cls, type) and issubclass(cls, Pass) and cls.name == name):
        raise TypeError(f"{passes[name]} is not a pass named `{name}`")
    return cls

"""Which groups may be pruned, by the names of the layers that create their channels."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from irprune.channels import Channels, Site
from irprune.errors import IrpruneError
from irprune.groups import Group

_NEAR = 0.3
"""How alike a name is, of 1, that a pattern may have meant: `fc1` is so far from `fc1.weight`."""


@dataclass(frozen=True)
class Names:
    """Patterns of the names of weights that create channels, and of their nodes."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def match(self, group: Group) -> bool:
        """Return whether a group may be pruned."""
        names = _names(group.producers)
        return (not self.only or _hit(names, self.only)) and not _hit(names, self.skip)

    def check(self, channels: Channels) -> None:
        """Raise IrpruneError for a pattern without a match, which would protect nothing."""
        names = _names(channels.producers)
        for option, patterns in (("only", self.only), ("skip", self.skip)):
            for pattern in patterns:
                if not _hit(names, (pattern,)):
                    near = difflib.get_close_matches(pattern, names, 1, _NEAR)
                    hint = f"did you mean {near[0]}? " if near else ""
                    mend = f"{hint}patterns are of the weights, and nodes, that create channels"
                    reason, place = f"{pattern!r} matches no layer", f"prune.{option}"
                    raise IrpruneError(reason, node=place, mend=mend)


def _names(producers: Iterable[Site]) -> list[str]:
    """Return the names of weights, then those of their nodes."""
    sites = list(producers)
    return [*(site.value.name or "" for site in sites), *(site.node.name or "" for site in sites)]


def _hit(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

"""Override files of `prune`: kept fractions or counts of single groups, by name pattern."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from irprune.errors import IrpruneError
from irprune.groups import Group
from irprune.passes.choice.selection import Counts


@dataclass(frozen=True)
class Overrides:
    """Kept fractions or counts of single groups, by name pattern, whatever the target."""

    rules: tuple[tuple[str, str, float], ...] = ()

    @classmethod
    def load(cls, path: str | None) -> Overrides:
        if path is None:
            return cls()
        try:
            tables = tomllib.loads(Path(path).read_text())["groups"]
            rules = [(p, k, float(v)) for p, t in tables.items() for k, v in t.items()]
        except (
            OSError,
            tomllib.TOMLDecodeError,
            KeyError,
            AttributeError,
            ValueError,
            TypeError,
        ) as e:
            raise IrpruneError(
                f"not a usable override file: {e}",
                file=path,
                mend='write [groups."layer1.*"] tables with ratio = 0.3 or keep = 16',
            ) from e
        for pattern, key, value in rules:
            if (
                key not in ("ratio", "keep")
                or (key == "ratio" and not 0 <= value <= 1)
                or not 0 <= value < np.inf
            ):
                raise IrpruneError(
                    f"{pattern}: {key} = {value:g} is not ratio in [0, 1] or keep", file=path
                )
        return cls(tuple(rules))

    def check(self, groups: list[Group]) -> None:
        """Raise IrpruneError for a pattern that matches no group: most likely misspelt."""
        for pattern, _, _ in self.rules:
            if not any(fnmatchcase(name, pattern) for g in groups for name in g.names):
                raise IrpruneError(
                    f"override {pattern!r} matches no group", mend="see `irprune inspect`"
                )

    def narrowed(self, group: Group, total: int, multiplicity: int, allowed: Counts) -> Counts:
        """Return the one allowed count that the last matching rule asks for, or all of them."""
        rule = self._rule(group)
        if rule is None:
            return allowed
        if self.empties(group):
            return np.zeros(1, np.int64)
        key, value = rule
        kept = value / multiplicity if key == "keep" else total * (1 - value)
        allowed = allowed[allowed > 0]
        return allowed[[np.abs(allowed - kept).argmin()]]

    def empties(self, group: Group) -> bool:
        """Return whether the last matching rule removes the whole group."""
        return self._rule(group) in (("keep", 0), ("ratio", 1))

    def _rule(self, group: Group) -> tuple[str, float] | None:
        """Return key and value of the last matching rule."""
        for pattern, key, value in reversed(self.rules):
            if any(fnmatchcase(name, pattern) for name in group.names):
                return key, value
        return None

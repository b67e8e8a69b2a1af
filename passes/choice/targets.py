"""Targets of `prune`: fractions of the original to keep, or amounts with a unit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from irprune.errors import IrpruneError

What = Literal["macs", "params", "latency", "memory"]

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
LEAST = "least"
"""As low as it gets without being worth less than uniform pruning."""

_UNITS: dict[What, dict[str, float]] = {
    "macs": _COUNTS,
    "params": _COUNTS,
    "latency": _SECONDS,
    "memory": _BYTES,
}


@dataclass(frozen=True)
class Target:
    """An upper bound of a cost, a fraction of the original or an amount; or the least there is."""

    what: What
    text: str
    """As the user wrote it."""
    fraction: float | None
    amount: float | None

    @classmethod
    def of(cls, what: What, given: float | str) -> Target:
        """Check a fraction or read an amount such as 300M, 12ms or 80MB; IrpruneError if wrong.

        A latency may be ``least``.
        """
        if given == LEAST and what == "latency":
            return cls(what, LEAST, None, None)
        if isinstance(given, str):
            return cls(what, given, None, _amount(what, given))
        if not 0 < given <= 1:
            raise IrpruneError(f"{what}={given} must lie in (0, 1]: it is the part kept")
        return cls(what, str(given), given, None)

    @property
    def least(self) -> bool:
        """Return whether there is no bound: the cost is to be as low as it gets."""
        return self.fraction is None and self.amount is None

    def bound(self, original: float) -> float:
        """Return the amount, given that of the original."""
        if self.amount is not None:
            return self.amount
        assert self.fraction is not None
        return self.fraction * original


def _amount(what: What, text: str) -> float:
    units = _UNITS[what]
    match = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]*)", text)
    try:
        assert match is not None
        amount = float(match[1]) * units[match[2]]
    except (AssertionError, KeyError, ValueError) as error:
        optional = "" in units
        names = [unit for unit in units if unit]
        listed = f"{', '.join(names[:-1])} or {names[-1]}"
        raise IrpruneError(
            f'{what}="{text}" is no number with {"an optional" if optional else "a unit:"} {listed}'
        ) from error
    if amount <= 0:
        raise IrpruneError(f'{what}="{text}" must be more than 0')
    return amount

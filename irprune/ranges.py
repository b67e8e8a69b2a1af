"""Numbers of dataclasses: finite and in range, or refused by name."""

from __future__ import annotations

from irprune.errors import IrpruneError


def check_range(table: object, interval: str, *names: str) -> None:
    """Refuse numbers outside an interval, written as ``[0, 1)``; infinity and NaN lie in none.

    Args:
        table: a dataclass.
        interval: an end with a bracket belongs to it, one with a parenthesis does not.
        names: fields of numbers, tuples of numbers, or None, which is let pass.

    Raises:
        IrpruneError: it names the field.
    """
    for name in names:
        value = getattr(table, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        for number in numbers:
            if not in_range(number, interval):
                raise IrpruneError(f"{name} = {number} must lie in {interval}")


def in_range(number: float, interval: str) -> bool:
    """Return whether a number lies in an interval."""
    low, high = map(float, interval[1:-1].split(","))
    above = number > low or (interval.startswith("[") and number == low)
    below = number < high or (interval.endswith("]") and number == high)
    return above and below

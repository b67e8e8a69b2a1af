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
    low, high = map(float, interval[1:-1].split(","))
    closed_low, closed_high = interval.startswith("["), interval.endswith("]")
    for name in names:
        value = getattr(table, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        for number in numbers:
            above = number > low or (closed_low and number == low)
            below = number < high or (closed_high and number == high)
            if not (above and below):
                raise IrpruneError(f"{name} = {number} must lie in {interval}")

"""Intervals that fields must lie in."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from irprune.errors import IrpruneError
from irprune.ranges import check_range


@dataclass(frozen=True)
class Table:
    value: float | tuple[float, ...] | None


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1)", (0, 0.5), (-1e-9, 1, float("nan"))),
        ("(0, 1]", (1, 1e-9), (0, 1.5, float("-inf"))),
        ("[1, inf)", (1, 10**400), (0, float("inf"), float("nan"))),
        ("(-inf, inf)", (-1e308, 3), (float("inf"), float("-inf"), float("nan"))),
    ],
)
def test_numbers_outside_are_named(
    interval: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    check_range(Table(inside), interval, "value")
    for number in outside:
        for value in (number, (*inside, number)):
            with pytest.raises(IrpruneError, match=r"value = .* must lie in"):
                check_range(Table(value), interval, "value")
    check_range(Table(None), interval, "value")

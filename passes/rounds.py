"""What a round of iterative pruning removes: a share of each layer, or all below a threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import floor
from typing import Literal

import numpy as np
import numpy.typing as npt

from irprune.channels import Channels
from irprune.groups import Group
from irprune.plan import Mask

Scores = npt.NDArray[np.float64]
Kind = Literal["conv", "dense"]
CONVOLUTIONS = ("Conv", "ConvTranspose")


def kind_of(group: Group) -> Kind:
    """Return whether a convolution creates the channels of a group."""
    conv = any(site.node.op_type in CONVOLUTIONS for site in group.producers)
    return "conv" if conv else "dense"


def least_important(share: float, least: int) -> Callable[[Group, Scores], int]:
    """Return the rule of ILP and IAP: a share of a layer's remaining filters, halves rounded up.

    Zhao et al., IAP step 4: "Prune p% × m^i filters with the smallest activation mean values".
    """

    exact = Fraction(str(share))  # 0.35 of 90 is 31.5: the float is less than what is written

    def count(group: Group, scores: Scores) -> int:
        return min(floor(exact * len(scores) + Fraction(1, 2)), max(len(scores) - least, 0))

    return count


def at_most(threshold: float, least: int) -> Callable[[Group, Scores], int]:
    """Return the rule of AIAP: all filters that score at most a threshold.

    Zhao et al., AIAP step 5: "Prune the filter if its activation mean value is not larger than
    threshold T[r]". A layer keeps its `least` best ones even so.
    """

    def count(group: Group, scores: Scores) -> int:
        return min(int((scores <= threshold).sum()), max(len(scores) - least, 0))

    return count


def next_threshold(
    before: float, round_: int, remaining: Sequence[int], *, step: float, hold: int, enough: float
) -> float:
    """Return T[r] of AIAP from T[r-1] and the parameters P[0], ..., P[r-1] after each round.

    Zhao et al., AIAP steps 1 and 2: T = 0 for r ≤ 3 (`hold`); then T[r-1] + λ (`step`) where
    d = (P[r-2] - P[r-1]) / P[0] < 1 % (`enough`), else T[r-1].
    """
    if round_ <= hold:
        return 0.0
    lost = (remaining[round_ - 2] - remaining[round_ - 1]) / remaining[0]
    return before + step if lost < enough else before


def kept_classes(
    channels: Channels,
    ranked: Sequence[tuple[Group, Scores]],
    rule: Callable[[Group, Scores], int],
) -> Mask:
    """Return the classes that stay, shape ``(count,)``, by scores of shape ``(size,)`` per group.

    Of every cell of a group as many classes go, the least important first.
    """
    keep = np.ones(channels.count, np.bool_)
    for group, scores in ranked:
        order = np.lexsort((scores, group.cells))
        lines = group.classes[order].reshape(group.rows, -1).T
        means = scores[order].reshape(group.rows, -1).mean(axis=0)
        keep[lines[: rule(group, means)]] = False
    return keep

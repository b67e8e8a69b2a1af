"""Samples of a pruning subspace: which configurations are worth exploring.

A configuration has one rate per module. The forerunner paper (section 3.2) writes δ_b ∈ Δ for
"the percentage of filters kept" in block b of B; the files, and everything here that is called
`removed`, hold 1 - δ_b. Wootz (section 7.1) calls Γ the set of pruning rates, which are removed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction

from irprune.errors import IrpruneError

SPREAD = 1.5
"""λ of the forerunner paper, section 5.2."""
MOST = 100_000
"""The largest sample."""
_MOST_STATES = 2_000_000

Config = tuple[float, ...]
"""The fraction removed per module."""


def spread(
    modules: int, removed: Sequence[float], count: int, *, seed: int = 0, bound: float = SPREAD
) -> list[Config]:
    """Different configurations whose model sizes spread close to uniformly.

    The forerunner paper, section 5.2: "We first include the special configurations with δ_b = δ,
    ∀δ ∈ Δ, b = 1, ..., B. To sample remaining configurations, we limit the probability of the
    summation of a configuration, p(Σ_b δ_b) ≤ λ / (B × (|Δ| − 1) + 1)." `bound` is λ, `modules` B
    and `removed` 1 - Δ. Here each further configuration takes a sum at random among those with
    room left, then one of the configurations with that sum, all equally likely. The bound is on
    the share of the sample: at most `most_per_sum` configurations have the same sum.

    Returns:
        `count` configurations of `modules` fractions removed, the uniform ones first.

    Raises:
        IrpruneError: fewer are asked for than there are uniform ones, or more than the bound lets
            in.
    """
    rates = _rates(modules, removed, count)
    if not 0 < bound < math.inf:
        raise IrpruneError("the bound on the spread must be positive")
    if count < len(rates):
        raise IrpruneError(f"{count} configurations are fewer than the {len(rates)} uniform ones")
    steps = _steps(rates)
    ways = _ways(steps, modules)
    most = most_per_sum(modules, len(rates), count, bound)
    capacity = sum(min(most, number) for number in ways[modules].values())
    if capacity < count:
        reason = f"at most {capacity} configurations spread so evenly, {count} are asked for"
        raise IrpruneError(reason, mend="ask for fewer, or raise the bound")
    chosen: dict[tuple[int, ...], None] = {(i,) * modules: None for i in range(len(rates))}
    room = {total: min(most, number) for total, number in ways[modules].items()}
    for config in chosen:
        total = sum(steps[i] for i in config)
        room[total] -= 1
    draw = random.Random(seed)
    open_sums = sorted(total for total, left in room.items() if left > 0)
    while len(chosen) < count:
        total = draw.choice(open_sums)
        config = _with_sum(total, steps, ways, draw)
        while config in chosen:
            config = _with_sum(total, steps, ways, draw)
        chosen[config] = None
        room[total] -= 1
        if room[total] == 0:
            open_sums.remove(total)
    return [tuple(rates[i] for i in config) for config in chosen]


def most_per_sum(modules: int, rates: int, count: int, bound: float = SPREAD) -> int:
    """How many of `count` configurations may have the same Σ_b δ_b: λ·N / (B·(|Δ|−1)+1), or one.

    One is always let in: else no sample smaller than (B·(|Δ|−1)+1) / λ could exist.
    """
    return max(1, math.floor(bound * count / (modules * (rates - 1) + 1)))


def grid(modules: int, removed: Sequence[float]) -> list[Config]:
    """Every configuration, in lexicographic order of the rates as given."""
    rates = _rates(modules, removed, 1)
    if len(rates) ** modules > MOST:
        reason = f"the grid has {len(rates)}^{modules} configurations, more than {MOST}"
        raise IrpruneError(reason, mend="sample it with the method spread or random")
    return list(itertools.product(rates, repeat=modules))


def uniform(modules: int, removed: Sequence[float], count: int, *, seed: int = 0) -> list[Config]:
    """Different configurations drawn from all, each equally likely (Wootz, section 7.1)."""
    rates = _rates(modules, removed, count)
    total = len(rates) ** modules
    if count > total:
        raise IrpruneError(f"there are only {total} configurations, {count} are asked for")
    draw = random.Random(seed)
    if total <= 2 * count:
        return draw.sample(list(itertools.product(rates, repeat=modules)), count)
    chosen: dict[Config, None] = {}
    while len(chosen) < count:
        chosen[tuple(draw.choice(rates) for _ in range(modules))] = None
    return list(chosen)


def sequences(
    lengths: Sequence[int], removed: Sequence[float], count: int, *, seed: int = 0
) -> list[Config]:
    """Configurations with one rate per sequence of modules: "collection-2" of Wootz.

    Wootz, section 7.3: "attained by setting one pruning rate for a sequence of convolution
    modules". `lengths` has the number of modules of each sequence, in order; the rates of the
    sequences are drawn as by `uniform`.
    """
    if not lengths or min(lengths) < 1:
        raise IrpruneError("every sequence needs at least one module")
    _rates(sum(lengths), removed, count)
    drawn = uniform(len(lengths), removed, count, seed=seed)
    return [
        tuple(rate for rate, length in zip(rates, lengths, strict=True) for _ in range(length))
        for rates in drawn
    ]


def _rates(modules: int, removed: Sequence[float], count: int) -> list[float]:
    """The rates as floats, everything checked."""
    rates = [float(rate) + 0.0 for rate in removed]
    if not 1 <= modules <= MOST:
        raise IrpruneError(f"the number of modules must be 1 to {MOST}, not {modules}")
    if not 1 <= count <= MOST:
        raise IrpruneError(f"a sample has 1 to {MOST} configurations, not {count}")
    if not rates or len(set(rates)) < len(rates):
        raise IrpruneError("the rates must be different numbers, at least one")
    for rate in rates:
        if not 0 <= rate < 1:
            raise IrpruneError(f"the rate {rate} is outside [0, 1): rates are fractions removed")
    return rates


def _steps(rates: Sequence[float]) -> list[int]:
    """The fractions kept as whole multiples of a common step, so that equal sums are equal."""
    kept = [1 - Fraction(repr(rate)) for rate in rates]
    scale = math.lcm(*(each.denominator for each in kept))
    return [int(each * scale) for each in kept]


def _ways(steps: Sequence[int], modules: int) -> list[dict[int, int]]:
    """For each number of modules up to `modules`: how many configurations have each sum."""
    ways: list[dict[int, int]] = [{0: 1}]
    states = 1
    for _ in range(modules):
        found: dict[int, int] = defaultdict(int)
        for total, number in ways[-1].items():
            for step in steps:
                found[total + step] += number
        states += len(found)
        if states > _MOST_STATES:
            reason = "these rates have too many different sums"
            raise IrpruneError(reason, mend="take fewer or evenly spaced rates")
        ways.append(dict(found))
    return ways


def _with_sum(
    total: int, steps: Sequence[int], ways: Sequence[dict[int, int]], draw: random.Random
) -> tuple[int, ...]:
    """One of the configurations with a sum, as indices of rates, all equally likely."""
    config = []
    for left in range(len(ways) - 1, 0, -1):
        rank = draw.randrange(ways[left][total])
        for i, step in enumerate(steps):
            rank -= ways[left - 1].get(total - step, 0)
            if rank < 0:
                config.append(i)
                total -= step
                break
    return tuple(config)

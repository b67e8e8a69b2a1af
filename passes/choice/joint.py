"""Selection under joint bounds: from targets to kept classes, and the report of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irprune.channels import Channels
from irprune.cost import CostModel, input_symbols
from irprune.errors import CheckFailed, IrpruneError
from irprune.groups import Group
from irprune.model import Model
from irprune.passbase import Context
from irprune.passes.choice.budgeted import Budgeted, Choice, Worth
from irprune.passes.choice.candidates import Candidates
from irprune.passes.choice.fastest import STARTS
from irprune.passes.choice.measured import TOLERANCE, Correction
from irprune.passes.choice.offer import Offer
from irprune.passes.choice.stopwatch import Stopwatch
from irprune.passes.choice.targets import LEAST, Target, What
from irprune.passes.scores.importance import Importance
from irprune.plan import Mask
from irprune.protocols import DeviceModel, HostDevice

KEY = "selection"
"""Where the record of the selection stands in a run's report."""

_DOUBT = 0.05
"""Choices predicted to be slower by more than this are not timed to find the fastest."""


def by_bounds(
    offer: Offer,
    targets: Mapping[What, Target],
    original: CostModel,
    worth: Worth,
    alignments: Sequence[int | None],
    device: DeviceModel | None,
    groups: Sequence[Group],
    model: Model,
    context: Context,
) -> tuple[Mask, dict[str, Any]]:
    """Return the kept classes within all targets, and a report.

    Args:
        original: counts the costs of the graph before any pruning: fractions are of these.
        alignments: to try in this order; None stands for the widths that the device rewards.
        device: whose latency is bounded, and whose widths are worth having.

    Raises:
        IrpruneError: the targets cannot be met together.
        CheckFailed: no candidate that was measured meets the latency.
    """
    prunable = Candidates.of(model, offer.channels, groups, context)
    predicted = None if device is None else device.costs(prunable, context.log)
    own = CostModel(model.ir.graph, input_symbols(model.ir.graph, context.shapes))
    budgeted = Budgeted(offer, own, predicted, worth)
    full = original.full()
    whole: dict[str, float] = {
        "macs": full.macs,
        "params": full.params,
        "memory": full.memory_bytes,
    }
    bounds: dict[What, float] = {
        what: t.bound(whole[what]) for what, t in targets.items() if what != "latency"
    }
    record: dict[str, Any] = {
        "targets": {w: t.text if t.fraction is None else t.fraction for w, t in targets.items()},
        "worth": worth,
    }
    if "latency" not in targets:
        choice, align = _counted(budgeted, bounds, whole, alignments)
    elif targets["latency"].least:
        assert device is not None
        choice, align = _fastest(
            budgeted, bounds, whole, prunable, alignments, device, record, context
        )
    elif isinstance(device, HostDevice):
        choice, align = _timed(
            budgeted, bounds, targets["latency"], prunable, alignments, device, record, context
        )
    else:
        assert device is not None
        assert predicted is not None
        choice, align = _predicted(
            budgeted, bounds, targets["latency"], alignments, device, predicted.unit, record
        )
    record |= {
        "reached": {what: choice.costs[what] / whole[what] for what in whole},
        "kept_importance": choice.kept_importance,
        "kept_l1": kept_l1(offer.channels, groups, choice.keep),
        "optimality_gap": choice.gap,
        "widths": _widths(choice, budgeted),
        "pareto": _pareto(choice),
    }
    context.report[KEY] = record
    context.log(
        f"prune: keeps {choice.kept_importance:.3f} of the importance; the best choice could keep "
        f"at most {choice.gap:.2%} of the range more"
    )
    return choice.keep, {"target": record["targets"], "reached": record["reached"], "align": align}


def _counted(
    budgeted: Budgeted,
    bounds: Mapping[What, float],
    whole: Mapping[str, float],
    alignments: Sequence[int | None],
) -> tuple[Choice, int | None]:
    for align in alignments:
        choice = budgeted.choose(bounds, align)
        if choice is not None:
            return choice, align
    raise _too_much(budgeted, bounds, whole, alignments[-1])


def _too_much(
    budgeted: Budgeted,
    bounds: Mapping[What, float],
    whole: Mapping[str, float],
    align: int | None,
) -> IrpruneError:
    """Return the error that says that even the least is too much, and how much it is."""
    least = budgeted.least(bounds, align).costs
    reach = ", ".join(f"{what}={least[what] / whole[what]:.3f}" for what in bounds)
    return IrpruneError(
        f"{', '.join(bounds)} cannot be reached together: the least is {reach} of the original",
        mend="ask for more, or relax align, min and skip",
    )


def _fastest(
    budgeted: Budgeted,
    bounds: Mapping[What, float],
    whole: Mapping[str, float],
    prunable: Candidates,
    alignments: Sequence[int | None],
    device: DeviceModel,
    record: dict[str, Any],
    context: Context,
) -> tuple[Choice, int | None]:
    """Take the fastest choice of a count: as measured where the device is at hand, or predicted."""
    ((what, bound),) = bounds.items()
    # The widths that the device rewards most, and the finest: stairs differ from layer to layer.
    ends = dict.fromkeys((alignments[0], alignments[-1]))
    found = [(budgeted.fastest(what, bound, a, start), a) for a in ends for start in STARTS]
    made = [(choice, align) for choice, align in found if choice is not None]
    if not made:
        raise _too_much(budgeted, bounds, whole, alignments[-1])
    whole_s = budgeted.whole["latency"]
    latency: dict[str, Any] = {"target": LEAST, "device": device.name, "measured": None}
    record["latency"] = latency
    if not isinstance(device, HostDevice):
        choice, align = min(made, key=lambda pair: pair[0].costs["latency"])
        latency |= {"predicted": choice.costs["latency"] / whole_s, "steps": []}
        return choice, align
    best_s = min(choice.costs["latency"] for choice, _ in made)
    near = [pair for pair in made if pair[0].costs["latency"] <= best_s * (1 + _DOUBT)]
    with _stopwatch(prunable, device, context) as watch:
        tried = [(watch.time(choice, whole_s, long=True), align) for choice, align in near]
    context.report[KEY] = record
    latency |= {
        "threads": device.threads,
        "provider": device.provider,
        "steps": [step.to_json() for step, _ in tried],
    }
    best, align = min(tried, key=lambda pair: pair[0].value)
    if best.ratio is None:
        raise CheckFailed(f"latency={LEAST}: no choice runs: {best.error}")
    latency |= best.found()
    if best.slower:
        low, high = best.ratio.low, best.ratio.high
        raise CheckFailed(
            f"latency={LEAST}: the choice is slower than the original: {best.ratio.value:.3f} "
            f"[{low:.3f}, {high:.3f}]",
            mend=f"ask for a lower {what}",
        )
    return best.choice, align


def _stopwatch(prunable: Candidates, device: HostDevice, context: Context) -> Stopwatch:
    if context.bencher is None:
        raise IrpruneError(
            "a latency target needs onnxruntime, which is not installed",
            mend='install "irprune[cpu]" or "irprune[gpu]"',
        )
    original = context.original or prunable.model
    return Stopwatch(prunable, original, context.bencher(), device, context.seed)


def _timed(
    budgeted: Budgeted,
    bounds: Mapping[What, float],
    target: Target,
    prunable: Candidates,
    alignments: Sequence[int | None],
    device: HostDevice,
    record: dict[str, Any],
    context: Context,
) -> tuple[Choice, int | None]:
    """Meet a latency target by measuring on the device."""
    with _stopwatch(prunable, device, context) as watch:
        correction = Correction(budgeted, bounds, target, watch, alignments, context)
        record["latency"] = {
            "target": correction.wanted,
            "device": device.name,
            "threads": device.threads,
            "provider": device.provider,
        }
        context.report[KEY] = record
        try:
            found, align = correction.run()
        finally:
            record["latency"]["steps"] = [tried.to_json() for tried in correction.tried]
    within = abs(found.value - correction.wanted) <= TOLERANCE
    record["latency"] |= {**found.found(), "within_tolerance": within}
    return found.choice, align


def _predicted(
    budgeted: Budgeted,
    bounds: Mapping[What, float],
    target: Target,
    alignments: Sequence[int | None],
    device: DeviceModel,
    unit: str,
    record: dict[str, Any],
) -> tuple[Choice, int | None]:
    """Meet a latency target by the word of a device that is not at hand."""
    if target.amount is not None and unit != "s":
        raise IrpruneError(
            f"latency={target.text}: device {device.name} has no clock, it counts in {unit}",
            mend="give a fraction of the original",
        )
    whole = dict(budgeted.whole)
    bounds = {**bounds, "latency": target.bound(whole["latency"])}
    choice, align = _counted(budgeted, bounds, whole, alignments)
    record["latency"] = {
        "target": bounds["latency"] / whole["latency"],
        "device": device.name,
        "predicted": choice.costs["latency"] / whole["latency"],
        "measured": None,
        "steps": [],
    }
    return choice, align


def kept_l1(channels: Channels, groups: Sequence[Group], keep: Mask) -> float:
    """Return the share of the absolute values of the weights that make channels, of all groups."""
    importance = Importance(channels, "l1", "producers", "sum", 0)
    kept = whole = 0.0
    for group in groups:
        scores = importance.of(group)
        if scores is not None:
            whole += float(scores.sum())
            kept += float(scores[keep[group.classes]].sum())
    return kept / whole if whole else 1.0


def _widths(choice: Choice, budgeted: Budgeted) -> list[dict[str, Any]]:
    """Return what each group keeps beside what it could have kept, in positions of its axis."""
    rows = []
    menus = choice.solution.state.problem.menus
    for candidate, menu, count in zip(choice.candidates, menus, choice.counts, strict=True):
        step = candidate.multiplicity
        kept = int(choice.keep[candidate.alive].any(axis=1).sum())
        rows.append(
            {
                "group": candidate.group.name,
                "width": len(candidate.alive) * step,
                "kept": kept * step,
                "stairs": (menu.counts * step).tolist(),
                "kept_importance": float(_share(candidate.scores, int(count))),
            }
        )
    return rows


def _share(scores: np.ndarray, count: int) -> float:
    """Return the share of the importance that the ``count`` most important classes have."""
    whole = float(scores.sum())
    return float(scores[len(scores) - count :].sum()) / whole if whole > 0 else 1.0


def _pareto(choice: Choice) -> list[dict[str, Any]]:
    """Return the choices that the solver passed: each cost as a share of its bound, and worth."""
    found = [{"costs": costs.tolist(), "worth": value} for costs, value in choice.solution.visited]
    return sorted(found, key=lambda point: point["costs"])

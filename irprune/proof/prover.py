"""The proof that a pruned graph computes what its base computes with dropped channels masked.

Ops that take statistics over dropped channels are inexact: there the reference applies the op to
the kept channels alone, and the proof tells so.

What must agree exactly (interface, shapes, weights, attributes) is compared first. Then both the
pruned graph and the masked reference run on the same sample inputs, and every activation that
both name must agree at its kept positions: ``max|a - b| / max|b|`` of each stays within a bound,
1e-4 by default (order of additions explains about 1e-6). Infinite and NaN positions must be the
same. Where an activation is beyond the bound, as the small outputs of a Sigmoid after large inputs
are, each node of the pruned graph is run on the reference's own activations: if every one stays
within a tenth of the bound, and every channel within a hundredth of its own size, only rounding
has added up.

float16 and bfloat16 graphs are both widened to float32, so the same bound holds for them.
Integers and booleans must be equal; where they are made from floating-point numbers, rounding may
tip at most one in a thousand. Last, the comparison must reject mutants of the pruned graph: in up
to three of its layers, spread over the depth, two channels of the weight are swapped, and the
first activations that this reaches must be beyond the bound (swaps of channels that are dead on
all sample inputs show nothing, so several are tried). Where a layer hides all of them, the proof
is inconclusive.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from irprune.errors import IrpruneError
from irprune.inexact import passed
from irprune.proof import agreement
from irprune.proof.compare import Comparison, Errors, Unfinished
from irprune.proof.feeds import describe_feeds
from irprune.proof.reference import check_plan
from irprune.queries import describe
from irprune.shapes import infer

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.passbase import Context
    from irprune.plan import Plan

Verdict = Literal["proved", "failed", "inconclusive"]

OWN_SHARE = 0.1
"""Share of the bound that a node may be off by on exact inputs."""

_RANDOM = frozenset(
    ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform")
) | {"RandomUniformLike"}


@dataclass(frozen=True)
class MutantResult:
    """What the comparison said about a mutant; `error` is its largest relative error."""

    weight: str
    axis: int
    swapped: tuple[int, int]
    error: float


@dataclass(frozen=True)
class Proof:
    """The verdict and what it stands on.

    `max_error` is the largest relative error of any activation and `worst` its name; infinite
    where shapes, exact values or NaN positions differ, None where nothing was run. Where
    `accumulated` is set, rounding added up to that error from input to output, and `max_error`
    is that of single nodes. `compared` counts activations, `seeds` the sample inputs, and `feeds`
    describes these by input name.
    """

    verdict: Verdict
    reason: str
    tolerance: float
    max_error: float | None = None
    worst: str | None = None
    accumulated: float | None = None
    compared: int = 0
    seeds: int = 0
    feeds: dict[str, dict[str, Any]] = field(default_factory=dict)
    mutants: tuple[MutantResult, ...] = ()
    inexact: dict[str, int] = field(default_factory=dict)
    """How many inexact ops of each name see kept positions alone, in the gathered reference."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields fit for JSON; errors that are not finite become None."""
        data = asdict(self)
        data |= {key: _finite(data[key]) for key in ("max_error", "accumulated")}
        data["mutants"] = [asdict(m) | {"error": _finite(m.error)} for m in self.mutants]
        return data

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"


def _finite(error: float | None) -> float | None:
    return error if error is not None and math.isfinite(error) else None


def prove(
    base: ir.Model,
    pruned: ir.Model,
    plan: Plan,
    context: Context,
    *,
    seeds: int = 3,
    tolerance: float = 1e-4,
) -> Proof:
    """Compare `pruned` with `base` masked by `plan`; neither is changed.

    An empty plan claims that both compute the same function, whatever their weights.

    Raises:
        IrpruneError: the plan does not fit the base, no runner is given, the feeds do not fit,
            or the runner cannot run the base.
    """
    if context.runner is None:
        raise IrpruneError(
            "the proof needs onnxruntime, which is not installed",
            mend='install "irprune[cpu]" or "irprune[gpu]"',
        )
    check_plan(base, plan)
    problems = list(agreement.interface(base, pruned))
    base = _shaped(base) if plan else base
    try:
        pruned = _shaped(pruned)
    except IrpruneError as error:
        problems.append(f"the pruned model is malformed: {error.reason}")
    if plan:
        for check in (agreement.shapes, agreement.weights, agreement.nodes):
            problems += check(base, pruned, plan)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Proof("failed", problems[0] + more, tolerance)
    for node in base.graph:
        if node.op_type in _RANDOM:
            return Proof("inconclusive", f"{describe(node)} draws random numbers", tolerance)
    with tempfile.TemporaryDirectory(prefix="irprune-proof-") as folder:
        try:
            comparison = Comparison(base, pruned, plan, context, Path(folder), tolerance)
            proof = _numbers(comparison, base, seeds, tolerance)
            return _told(proof, passed(base.graph, plan))
        except Unfinished as failure:
            return Proof("failed", str(failure), tolerance)


def _told(proof: Proof, inexact: dict[str, int]) -> Proof:
    """Return a proof that tells which inexact ops it took from the gathered reference."""
    if not inexact:
        return proof
    ops = ", ".join(f"{count} {name}" for name, count in inexact.items())
    reason = f"{proof.reason}; against the gathered reference at {ops}"
    return replace(proof, reason=reason, inexact=inexact)


def _shaped(model: ir.Model) -> ir.Model:
    """Return the model with inferred shapes where it states none; IrpruneError on a conflict."""
    if all(value.shape is not None for node in model.graph for value in node.outputs):
        return model
    model = model.clone()
    infer(model)
    return model


def _numbers(comparison: Comparison, base: ir.Model, seeds: int, tolerance: float) -> Proof:
    """Compare on up to `seeds` sample inputs, until one fails."""
    total, accumulated = Errors(tolerance), Errors(tolerance)
    used = 0
    while used < comparison.distinct_feeds(seeds) and not total.beyond:
        feeds = comparison.feeds(used)
        used += 1
        errors = Errors(tolerance)
        comparison.run(feeds, errors)
        if errors.beyond:
            steps = Errors(tolerance * OWN_SHARE)
            comparison.run_steps(feeds, steps)
            if not steps.beyond:
                accumulated.merge(errors)
                errors = steps
        total.merge(errors)
    verdict, reason = _verdict(total, accumulated, comparison, base, used)
    return Proof(
        verdict,
        reason,
        tolerance,
        total.largest,
        total.worst,
        accumulated.largest if accumulated.beyond else None,
        len(comparison.activations),
        used,
        describe_feeds(base, feeds),
        tuple(
            MutantResult(t.mutant.weight, t.mutant.axis, t.mutant.swapped, t.errors.largest)
            for t in comparison.trials
        ),
    )


def _verdict(
    errors: Errors, accumulated: Errors, comparison: Comparison, base: ir.Model, seeds: int
) -> tuple[Verdict, str]:
    bound = f"the bound is {errors.tolerance:.0e}"
    if errors.beyond:
        first = errors.beyond[0]
        where = f"first at {first}, " if first != errors.worst else ""
        off = f"is off by {errors.largest:.1e}"
        if not math.isfinite(errors.largest):
            off = "differs in shape, type, exact values or where it is infinite or NaN"
        return "failed", f"{errors.worst} {off} ({where}{bound})"
    unseen = [v.name for v in base.graph.outputs if v.name not in comparison.activations]
    if unseen:
        return "inconclusive", f"output {unseen[0]} is no tensor, so it cannot be compared"
    if not comparison.trials:
        return "inconclusive", "no weight of the main graph has two channels that differ"
    for trial in comparison.trials:
        if not trial.errors.beyond:
            one, other = trial.mutant.swapped
            return "inconclusive", (
                f"swapping positions {one} and {other} on axis {trial.mutant.axis} of "
                f"{trial.mutant.weight} changes activations by {trial.errors.largest:.1e} only "
                f"({bound}), so mistakes could go unnoticed"
            )
    rounding = (
        f", node by node (rounding adds up to {accumulated.largest:.1e} at {accumulated.worst})"
        if accumulated.beyond
        else ""
    )
    return "proved", (
        f"{len(comparison.activations)} activations agree within {errors.largest:.1e} on {seeds} "
        f"sample inputs{rounding}, {len(comparison.trials)} mutants are rejected"
    )

"""The proof that a run owes its user: what it must show, and the error when it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irprune.errors import CheckFailed, IrpruneError

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.model import Model
    from irprune.passbase import Context
    from irprune.plan import Plan
    from irprune.proof.prover import Proof

SAME_BASE = "base equals original"
COMPACTED = "compacted equals masked base"


def require_runner(context: Context) -> None:
    """Raise IrpruneError where no runner is installed."""
    if context.runner is None:
        raise IrpruneError(
            "the proof needs onnxruntime, which is not installed",
            mend='install "irprune[cpu]" or "irprune[gpu]", or pass --no-verify',
        )


def prove_run(model: Model, context: Context) -> list[dict[str, Any]]:
    """Prove the present graph of `model` against the original input of the run.

    Two links: the base equals the original (left out after weight-changing passes), and the
    present graph equals the masked base. Returns one row per link, also kept in
    `context.report["proof"]`. Raises CheckFailed where a link is not proved, IrpruneError
    without a runner.
    """
    from irprune.plan import Plan

    if context.proved:
        return list(context.report["proof"])
    require_runner(context)
    rows: list[dict[str, Any]] = []
    context.report["proof"] = rows
    base = model.ir if model.base is None else model.base
    if context.original is not None and not context.weights_changed:
        _link(SAME_BASE, context.original.ir, base, Plan.empty(), context, rows)
    if model.base is not None and model.plan is not None:
        _link(COMPACTED, base, model.ir, model.plan, context, rows)
    context.proved = True
    return rows


def _link(
    claim: str,
    left: ir.Model,
    right: ir.Model,
    plan: Plan,
    context: Context,
    rows: list[dict[str, Any]],
) -> None:
    from irprune.proof.prover import prove

    proof = prove(left, right, plan, context)
    rows.append({"claim": claim, **proof.to_json()})
    sizes = ", ".join(f"{name} {feed['shape']}" for name, feed in proof.feeds.items())
    context.log(f"proof: {claim}: {proof.verdict}" + (f" on {sizes}" if sizes else ""))
    require(claim, proof)


def require(claim: str, proof: Proof) -> None:
    """Raise CheckFailed unless the verdict is `proved`."""
    if proof.verdict != "proved":
        raise CheckFailed(f"{claim}: proof {proof.verdict}: {proof.reason}")

"""A graph in plainer terms: functions inlined, and what its shapes make known folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import PreconditionError
from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

from irprune import shapes
from irprune.errors import IrpruneError
from irprune.folding.learning import Knowledge
from irprune.folding.merged import unmerge
from irprune.folding.rewrite import ShapeFolder
from irprune.folding.sequences import unsequence
from irprune.folding.strided import unstride

_ROUNDS = 8


def inline(model: ir.Model) -> int:
    """Inline model-local functions; return how many calls there were in the main graph.

    Raises:
        IrpruneError: a function cannot be inlined.
    """
    if not model.functions:
        return 0
    try:
        inliner = InlinePass()
        inliner.requires(model)
        result = inliner.call(model)
    except (PreconditionError, ValueError) as error:
        raise IrpruneError(
            f"a model-local function cannot be inlined: {error}",
            mend="export the model without functions",
        ) from error
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    return sum(result.id_count.values())


def named_weights(graph: ir.Graph) -> frozenset[ir.Value]:
    """Return the floating-point weights that the file names."""
    return frozenset(
        value
        for value in graph.initializers.values()
        if value.dtype is not None and value.dtype.is_floating_point()
    )


def fold(
    model: ir.Model, parameters: frozenset[ir.Value], log: Callable[[str], None]
) -> Counter[str]:
    """Infer shapes and fold what they make known, until nothing changes.

    Nothing is computed from `parameters`. `log` hears of nodes that could not be evaluated.
    """
    counts: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        shapes.infer(model)
        knowledge = Knowledge(model, parameters)
        folder = ShapeFolder(model.graph, knowledge)
        folder.run()
        counts += folder.counts
        if folder.counts:
            continue
        detours = Counter(
            unmerged=unmerge(model.graph),
            unsequenced=unsequence(model.graph),
            unstrided=unstride(model.graph),
        )
        counts += detours
        if not any(detours.values()):
            break
    for node, reason in knowledge.failures.items():
        log(f"{node} stays, onnx.reference cannot compute it: {reason}")
    return counts

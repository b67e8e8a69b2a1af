"""`normalize`: the graph as every later pass expects it, the same function in plainer terms."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from irprune.errors import IrpruneError
from irprune.passbase import Context, Pass

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.model import Model

_OLDEST_OPSET = 7
_ROUNDS = 8


@dataclass(frozen=True)
class Normalize(Pass):
    """Inline functions, name everything, fold constants and shape arithmetic, drop copies."""

    name: ClassVar[str] = "normalize"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        """Normalise the graph.

        Raises:
            IrpruneError: channels are already selected or removed, the opset is older than 7, a
                function cannot be inlined, a constant is sparse, or shapes contradict each other.
        """
        from irprune import names, tidy
        from irprune.folding import constants

        tidy.require_full_width(model, self.name)
        _require_opset(model.ir)
        parameters = _parameters(model.ir.graph)
        counts = {
            "inlined": _inline(model.ir),
            "constants": constants.lift(model.ir.graph),
            "named": names.name_all(model.ir.graph),
        }
        counts["copies"] = tidy.bypass_copies(model.ir.graph)
        folded = _fold(model.ir, parameters, context)
        counts["weights"] = _fold_weights(model.ir, context)
        counts["unshared"] = constants.unshare(model.ir.graph, names.Names(model.ir.graph))
        removed = tidy.remove_dead(model.ir)
        counts |= folded | {"removed": folded["removed"] + removed}
        return {name: count for name, count in counts.items() if count}


def _require_opset(model: ir.Model) -> None:
    """Raise IrpruneError for an opset too old; `ai.onnx` is another name of the default domain."""
    if "" not in model.opset_imports and "ai.onnx" in model.opset_imports:
        model.opset_imports[""] = model.opset_imports.pop("ai.onnx")
    opset = model.opset_imports.get("")
    if opset is None or opset < _OLDEST_OPSET:
        found = "no opset of the default domain" if opset is None else f"opset {opset}"
        raise IrpruneError(
            f"the model imports {found}; {_OLDEST_OPSET} is the oldest supported",
            mend=f"convert it with onnx.version_converter.convert_version(model, {_OLDEST_OPSET})",
        )


def _inline(model: ir.Model) -> int:
    """Inline model-local functions; return how many calls there were in the main graph."""
    from onnx_ir.passes import PreconditionError
    from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

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


def _fold_weights(model: ir.Model, context: Context) -> int:
    from irprune.folding.weights import fold_weights

    failures: dict[str, str] = {}
    count = fold_weights(model.graph, failures)
    for node, reason in failures.items():
        context.log(f"normalize: {node} stays, onnx.reference cannot compute it: {reason}")
    return count


def _parameters(graph: ir.Graph) -> frozenset[ir.Value]:
    """Return the floating-point weights that the file names."""
    return frozenset(
        value
        for value in graph.initializers.values()
        if value.dtype is not None and value.dtype.is_floating_point()
    )


def _fold(model: ir.Model, parameters: frozenset[ir.Value], context: Context) -> Counter[str]:
    """Infer shapes and fold what they make known, until nothing changes."""
    from irprune import shapes
    from irprune.folding.learning import Knowledge
    from irprune.folding.merged import unmerge
    from irprune.folding.rewrite import ShapeFolder
    from irprune.folding.strided import unstride

    counts: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        shapes.infer(model)
        knowledge = Knowledge(model, parameters)
        folder = ShapeFolder(model.graph, knowledge)
        folder.run()
        counts += folder.counts
        if folder.counts:
            continue
        detours = Counter(unmerged=unmerge(model.graph), unstrided=unstride(model.graph))
        counts += detours
        if not any(detours.values()):
            break
    for node, reason in knowledge.failures.items():
        context.log(f"normalize: {node} stays, onnx.reference cannot compute it: {reason}")
    return counts

"""`cleanup`: what no output needs goes, and stale shapes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from irprune.errors import IrpruneError
from irprune.passbase import Context, Pass

if TYPE_CHECKING:
    from irprune.model import Model


@dataclass(frozen=True)
class Cleanup(Pass):
    """Remove dead nodes, unused weights, functions and opset imports, and stale shapes."""

    name: ClassVar[str] = "cleanup"

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        """Clean the graph; IrpruneError while channels are selected but not yet removed."""
        from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedOpsetsPass

        from irprune import shapes, tidy
        from irprune.folding.learning import Knowledge

        if model.pending is not None:
            raise IrpruneError(
                "pass `cleanup` would remove what the pending plan names",
                mend="place `cleanup` after `compact`",
            )
        imports, functions = len(model.ir.opset_imports), len(model.ir.functions)
        removed = tidy.remove_dead(model.ir)
        RemoveUnusedFunctionsPass()(model.ir)  # type: ignore[no-untyped-call]
        RemoveUnusedOpsetsPass()(model.ir)
        shapes.infer(model.ir)
        Knowledge(model.ir, frozenset())  # sets the shapes that onnx cannot infer
        counts = {
            "removed": removed,
            "functions": functions - len(model.ir.functions),
            "opset-imports": imports - len(model.ir.opset_imports),
        }
        return {name: count for name, count in counts.items() if count}

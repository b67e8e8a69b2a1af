"""`normalize`: the graph as every later pass expects it, the same function in plainer terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from irprune.errors import IrpruneError
from irprune.passbase import Context, Pass, require_full_width

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.model import Model

_OLDEST_OPSET = 7


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
        from irprune import dropout, names, tidy
        from irprune.folding import constants, plain

        require_full_width(model, self.name)
        _require_opset(model.ir)
        parameters = plain.named_weights(model.ir.graph)
        counts = {
            "inlined": plain.inline(model.ir),
            "constants": constants.lift(model.ir.graph),
            "named": names.name_all(model.ir.graph),
        }
        dropouts = dropout.present(model.ir.graph)
        counts["copies"] = tidy.bypass_copies(model.ir.graph)
        dropout.note(model.ir, dropouts - dropout.present(model.ir.graph))
        folded = plain.fold(model.ir, parameters, lambda line: context.log(f"normalize: {line}"))
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


def _fold_weights(model: ir.Model, context: Context) -> int:
    from irprune.folding.weights import fold_weights

    failures: dict[str, str] = {}
    count = fold_weights(model.graph, failures)
    for node, reason in failures.items():
        context.log(f"normalize: {node} stays, onnx.reference cannot compute it: {reason}")
    return count

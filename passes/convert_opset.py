"""`convert-opset`: the same network in another version of the operator set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from irprune.errors import IrpruneError
from irprune.passbase import Context, Pass, option, require_full_width

if TYPE_CHECKING:
    import onnx_ir as ir

    from irprune.model import Model

_OLDEST = 7


@dataclass(frozen=True)
class ConvertOpset(Pass):
    """Convert the model to another opset, by onnx's version converter."""

    name: ClassVar[str] = "convert-opset"

    to: int | None = option(None, help="the opset to convert to")

    def run(self, model: Model, context: Context) -> dict[str, Any]:
        """Convert the main graph; names, weights, IR version and metadata stay.

        Raises:
            IrpruneError: no opset is given, channels are already selected or removed, the model
                has functions, or onnx lacks an adapter of an op or does not know the opset.
        """
        from irprune import names, shapes

        require_full_width(model, self.name)
        if self.to is None:
            raise IrpruneError(f"`{self.name}` needs an opset", mend="write convert-opset{to=18}")
        before = model.ir.opset_imports.get("", 0)
        if model.ir.functions:
            raise IrpruneError(
                "a model with functions cannot be converted",
                mend=f"place normalize before `{self.name}`: it inlines them",
            )
        if before == self.to:
            return {}
        model.ir = _converted(model.ir, self.to)
        names.name_all(model.ir.graph)
        shapes.infer(model.ir)
        return {"from": before, "to": self.to}


def _converted(model: ir.Model, to: int) -> ir.Model:
    """Return the model in another opset; large weights are shared, not copied."""
    import onnx
    import onnx_ir as ir
    from onnx.version_converter import ConvertError, convert_version

    from irprune.shapes import skeleton

    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST <= to <= newest:
        raise IrpruneError(f"opset {to} is not one of {_OLDEST} to {newest}")
    try:
        proto = convert_version(skeleton(model), to)
    except (ConvertError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rpartition("failed: ")[2]
        before = model.opset_imports.get("", 0)
        raise IrpruneError(
            f"onnx cannot convert the model from opset {before} to {to}: {reason}",
            mend="choose a nearer opset, or export the model again",
        ) from error
    result = ir.serde.deserialize_model(proto)
    _take_weights(model.graph, result.graph)
    _take_marks(model.graph, result.graph)
    result.ir_version = model.ir_version
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    result.domain, result.model_version = model.domain, model.model_version
    result.doc_string = model.doc_string
    result.metadata_props.update(model.metadata_props)
    return result


def _take_weights(old: ir.Graph, new: ir.Graph) -> None:
    """Turn the graph inputs that stood for large weights back into these."""
    real = {value.name for value in old.inputs}
    inputs = list(new.inputs)
    new.inputs.clear()
    new.inputs.extend(value for value in inputs if value.name in real)
    for value in inputs:
        weight = old.initializers.get(value.name or "")
        if value.name not in real and weight is not None:
            value.const_value = weight.const_value
            new.register_initializer(value)


def _take_marks(old: ir.Graph, new: ir.Graph) -> None:
    """Say again of every initializer what it is, a parameter or a buffer: onnx forgets it."""
    for name, value in new.initializers.items():
        if name in old.initializers:
            value.metadata_props.update(old.initializers[name].metadata_props)


__all__ = ["ConvertOpset"]

"""The graph that is lowered: a copy in plainer terms, every initializer under its own name."""

from __future__ import annotations

import onnx_ir as ir

from irprune import names, shapes, tidy
from irprune.backends.torch.lowering.fuse import fuse
from irprune.folding import constants, plain


def prepared(model: ir.Model) -> ir.Model:
    """Return a copy with functions inlined, constants lifted, shapes folded and ops fused."""
    copy = model.clone()
    parameters = plain.named_weights(copy.graph)
    plain.inline(copy)
    constants.lift(copy.graph)
    names.name_all(copy.graph)
    tidy.bypass_copies(copy.graph)
    plain.fold(copy, parameters, lambda line: None)
    shapes.infer(copy)
    fuse(copy.graph)
    tidy.remove_dead(copy)
    return copy
